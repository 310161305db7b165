"""A figure that is not known, with the reason: what keeps ``None`` from ever being without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.accounting.row import ReportRow


@dataclass(frozen=True)
class Unknown:
    """Stands where a figure would. ``reason`` is for people: a clause without a full stop."""

    reason: str


T = TypeVar("T")

Figures = Mapping[str, Any]
"""Some fields of a report row: each a value of the field's type, or ``Unknown``; never ``None``."""


def known(value: T | None, reason: str | None) -> T | Unknown:
    """``value``, or ``Unknown`` with ``reason`` in the place of ``None``."""
    return Unknown(reason or "") if value is None else value


def row_of(*parts: Figures) -> ReportRow:
    """The row that ``parts`` make up together; every ``None`` in it has its reason.

    Raises:
        TypeError: a field is missing, given twice, or bare ``None``: a bug here, not of the user's.
    """
    figures: dict[str, Any] = {}
    for part in parts:
        if twice := figures.keys() & part.keys():
            raise TypeError(f"given twice: {sorted(twice)}")
        figures.update(part)
    if bare := [name for name, value in figures.items() if value is None]:
        raise TypeError(f"None without a reason: {bare}")
    reasons = {name: value.reason for name, value in figures.items() if isinstance(value, Unknown)}
    values: dict[str, Any] = {name: None if isinstance(value, Unknown) else value for name, value in figures.items()}
    return ReportRow(**values, reasons=reasons)
