"""What a score says: a figure or the reason why there is none, and the figures of the items where they exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """One score of one set of predictions.

    Attributes:
        name: as in the registry.
        value: of the whole set; ``None`` where it is not known.
        reason: why ``value`` is ``None``; else ``None``.
        per_item: one figure for each item, in the order given, for intervals; ``None`` where the score has none.
            An item without a figure is ``None``.
        note: how the figure was obtained, where that is not plain from the name.
    """

    name: str
    value: float | None
    reason: str | None = None
    per_item: tuple[float | None, ...] | None = None
    note: str | None = None


def scored(
    name: str, value: float, *, per_item: Sequence[float | None] | None = None, note: str | None = None
) -> ScoreResult:
    """The result of ``value``; one that is not finite becomes unknown, with the reason."""
    items = None if per_item is None else tuple(None if item is None else _finite(item) for item in per_item)
    known = _finite(value)
    reason = None if known is not None else f"{name} came out as {value}"
    return ScoreResult(name=name, value=known, reason=reason, per_item=items, note=note)


def averaged(name: str, items: Sequence[float | None], *, note: str | None = None) -> ScoreResult:
    """The result whose value is the mean of the items that have a figure; the note counts those that do not."""
    known = [item for item in items if item is not None]
    if not known:
        return unknown(name, f"none of {len(items)} items could be scored", note=note)
    missing = len(items) - len(known)
    left_out = f"{missing} of {len(items)} items could not be scored and are left out" if missing else None
    notes = "; ".join(text for text in (note, left_out) if text) or None
    return scored(name, math.fsum(known) / len(known), per_item=items, note=notes)


def unknown(name: str, reason: str, *, note: str | None = None) -> ScoreResult:
    """No figure, and why not."""
    return ScoreResult(name=name, value=None, reason=reason, note=note)


def check_pairs(name: str, predictions: int, references: int, *, what: str = "references") -> None:
    """Refuse what cannot be scored.

    Raises:
        InputError: nothing to score, or not one prediction for each reference.
    """
    if predictions != references:
        raise InputError(f"{predictions} predictions cannot be scored against {references} {what}; give one for each.")
    if predictions == 0:
        raise InputError(f"{name} of no predictions is undefined; give at least one sample.")


def text_pairs(
    name: str, predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> list[tuple[str, tuple[str, ...]]]:
    """Each prediction with all of its references; a reference given as one text counts as one.

    Raises:
        InputError: nothing to score, not one item for each, or an item without a reference.
    """
    check_pairs(name, len(predictions), len(references))
    several = [(given,) if isinstance(given, str) else tuple(given) for given in references]
    for index, texts in enumerate(several):
        if not texts:
            raise InputError(f"Item {index} has no reference, so {name} is undefined for it; give at least one.")
    return list(zip(predictions, several, strict=True))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
