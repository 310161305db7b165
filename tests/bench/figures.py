"""What is computed of the meters' answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PJ_PER_J = 10**12


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One meter in one window: joules and the truth of that very window, or an error in a word.

    Attributes:
        flags: ours: methods and quality flags of the entries.
    """

    joules: float | None
    true_pj: int
    error: str = ""
    flags: tuple[str, ...] = ()

    @property
    def error_percent(self) -> float | None:
        """Signed error against the truth; ``None`` where there is no figure, or the truth is nothing."""
        return None if self.joules is None else error_percent(self.joules, self.true_pj)


def error_percent(joules: float, true_pj: int) -> float | None:
    """How much too much, in percent of the truth; ``None`` where nothing was drawn."""
    return None if true_pj == 0 else 100 * (joules * PJ_PER_J - true_pj) / true_pj


def signed(percent: float) -> str:
    """``+0.02``: two places below ten, one above; what rounds to nothing is ``0.00``."""
    text = f"{percent:+.2f}" if abs(percent) < 10 else f"{percent:+.1f}"
    return "0.00" if float(text) == 0 else text


def cell(outcomes: Sequence[Outcome]) -> str:
    """One cell: the error, for several windows their mean and the farthest from 0; words for what failed."""
    errors = sorted({outcome.error for outcome in outcomes if outcome.error})
    percents = [outcome.error_percent for outcome in outcomes if not outcome.error]
    known = [percent for percent in percents if percent is not None]
    parts = [signed(sum(known) / len(known))] if known else []
    if len(known) > 1:
        parts.append(f"(worst {signed(max(known, key=abs))})")
    failed = sum(bool(outcome.error) for outcome in outcomes)
    if failed:
        parts += errors if not known else [f"{failed} of {len(outcomes)}: {', '.join(errors)}"]
    flags = sorted({flag for outcome in outcomes for flag in outcome.flags})
    return " ".join(parts) + (f" [{', '.join(flags)}]" if flags else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that is aligned as text too."""
    lines = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = [
        "| " + " | ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
