"""Jobs as flat records: what ``report`` filters, sorts and shows. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.row import FIELDS
from orchestrator.accounting.rows import Account
from workers.errors import InputError, UnknownNameError

TAGS = ("user", "team", "project", "run_id", "date")
"""What a record has besides the row's fields; ``date`` is the UTC date of submission."""
NAMES = (*FIELDS, *TAGS)
UNKNOWN_WORD = "null"
"""Stands for what is not known: ``cegi_g=null``."""

Record = Mapping[str, object]
_CONDITION = re.compile(r"\s*([A-Za-z0-9_]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One ``--where``: ``accelerator=L4,T4``, ``model=tiny/*``, ``energy_kwh>0.5``, ``cegi_g!=null``."""

    name: str
    sign: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, names: Sequence[str] = NAMES) -> Condition:
        """Read a condition.

        Raises:
            InputError: not a field, a sign and a value, or an order of what has none.
            UnknownNameError: no such field.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or not found[3]:
            raise InputError(
                f"{text!r} is no condition. Write a field, one of = != < <= > >=, and a value: accelerator=L4."
            )
        name, sign, value = found.groups()
        if name not in names:
            raise UnknownNameError("field", name, names)
        if sign in ("=", "!="):
            return cls(name=name, sign=sign, values=tuple(part.strip() for part in value.split(",")))
        return cls(name=name, sign=sign, values=(value,))

    def holds(self, record: Record) -> bool:
        """Whether a record meets it; what is not known meets no comparison but ``=null``."""
        given = record[self.name]
        if self.sign == "=":
            return any(_is(given, value) for value in self.values)
        if self.sign == "!=":
            return not any(_is(given, value) for value in self.values)
        return given is not None and _ORDER[self.sign](_compared(given, self.values[0]))


def _is(given: object, wanted: str) -> bool:
    if given is None or wanted == UNKNOWN_WORD:
        return given is None and wanted == UNKNOWN_WORD
    if isinstance(given, int | float) and not isinstance(given, bool):
        number = _number(wanted)
        return number is not None and given == number
    if isinstance(given, Sequence) and not isinstance(given, str):
        return wanted in given
    return fnmatch.fnmatchcase(str(given), wanted)


_ORDER: Mapping[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def _compared(given: object, wanted: str) -> int:
    """-1, 0 or 1: numbers by size, words (dates among them) by spelling."""
    number = _number(wanted)
    if isinstance(given, int | float) and number is not None:
        return (given > number) - (given < number)
    text = str(given)
    return (text > wanted) - (text < wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def record_of(account: Account, *, date: str) -> Record:
    """An account as a record."""
    figures = account.details.figures
    tags = {name: figures.get(name) for name in TAGS if name != "date"}
    return {**account.row.as_dict(), **tags, "date": date}


def sort_records(records: Sequence[Record], keys: Sequence[str]) -> list[Record]:
    """Sorted by ``keys``, the first weighing most; ``-name`` turns its order, and what is not known comes last.

    Raises:
        UnknownNameError: no such field.
    """
    ordered = list(records)
    for key in reversed(keys):
        name = key.removeprefix("-")
        known = sorted({field for record in records for field in record})
        if records and name not in known:
            raise UnknownNameError("field", name, known)
        has, lacks = _split(ordered, name)
        ordered = [*sorted(has, key=lambda record: _sortable(record[name]), reverse=key.startswith("-")), *lacks]
    return ordered


def _split(records: Sequence[Record], name: str) -> tuple[list[Record], list[Record]]:
    has = [record for record in records if record[name] is not None]
    return has, [record for record in records if record[name] is None]


def _sortable(value: object) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))
