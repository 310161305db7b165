"""What the header of an ``nvidia-smi --format=csv`` file means, and how its cells are read. Pure.

``nvidia-smi`` writes ``power.draw [W]`` above ``119.17 W``, or above ``119.17`` when asked for no units; people rename
columns, drop the spaces, and save from spreadsheets with decimal commas. All of that is read here, and what could mean
two things is refused.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from workers.units import NS_PER_S

_NAMES: dict[str, tuple[str, ...]] = {
    "time": ("timestamp", "time", "datetime", "date_time"),
    "power": (
        *("power_draw", "power_draw_average", "average_power_draw", "power_draw_instant", "instantaneous_power_draw"),
        *("power", "power_usage"),
    ),
    "limit": ("enforced_power_limit", "power_limit"),
    "utilization": ("utilization_gpu", "utilization", "usage", "util"),
    "uuid": ("uuid",),
    "bus": ("pci_bus_id", "bus_id"),
    "index": ("index", "id", "gpu"),
    "name": ("name", "product_name", "model"),
}
"""What a column says, by its plain name (see ``plain``), best first. ``power.max_limit`` is not a limit that is set."""

_MILLIWATTS = {"w": 1000, "watt": 1000, "watts": 1000, "mw": 1, "milliwatts": 1, "kw": 1_000_000}
"""Milliwatts in one of the unit."""
_UNIT_SUFFIX = re.compile(r"_(w|watts?|mw|milliwatts|kw|percent)$")
_MISSING = frozenset({"", "-", "n/a", "nan", "na", "none", "null", "err!", "error", "not supported", "unknown error"})
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?")
_CELL = re.compile(rf"({_NUMBER.pattern})\s*([%A-Za-z]*)")
_TIME = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})[T ]\s*(\d{1,2}):(\d{2}):(\d{2})(?:[.,](\d{1,9})\d*)?\s*(Z|[+-]\d{2}:?\d{2})?"
)
TIMES = "2023/03/08 14:30:04.049, 2023-03-08T14:30:04.049Z, 2023-03-08 14:30:04+01:00, or seconds since 1970"
"""Examples of times that are understood, for messages."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column says what.

    Attributes:
        columns: the names as the file has them.
        separator: between the cells of a line; ``", "`` leaves bare commas to the numbers.
        places: what a column says (a key of the table above) to its place.
        units: what a column says to the unit its name carries, lower case; no entry when it carries none.
    """

    columns: tuple[str, ...]
    separator: str
    places: dict[str, int]
    units: dict[str, str]

    @property
    def is_usable(self) -> bool:
        """Whether it has both a time and a power."""
        return {"time", "power"} <= self.places.keys()

    @property
    def identity(self) -> str | None:
        """What tells boards apart: a UUID, else a bus address, else an index; ``None`` when nothing surely does."""
        return next((what for what in ("uuid", "bus", "index") if what in self.places), None)


def read_header(line: str) -> Layout:
    """What the columns of ``line`` say; a line that is no header says nothing that is known."""
    separator = _separator(line)
    columns = tuple(cell.strip().strip('"').strip() for cell in line.split(separator))
    plain_names, units = zip(*map(plain, columns), strict=True)
    places: dict[str, int] = {}
    for what, names in _NAMES.items():
        found = [plain_names.index(name) for name in names if name in plain_names]
        if found:
            places[what] = found[0]
    told = {what: units[place] for what, place in places.items() if units[place]}
    return Layout(columns=columns, separator=separator, places=places, units=told)


def plain(column: str) -> tuple[str, str]:
    """A column's name in lower case without spaces, ``gpu_`` in front or unit behind, and the unit, if any.

    ``power.draw [W]`` and ``gpu_power_draw_w`` are both ``("power_draw", "w")``.
    """
    name, _, unit = re.sub(r"[\])]\s*$", "", column).replace("(", "[").partition("[")
    name = re.sub(r"[\s._-]+", "_", name.strip().lower()).strip("_")
    if not unit and (suffix := _UNIT_SUFFIX.search(name)):
        name, unit = name[: suffix.start()], suffix[1]
    return name.removeprefix("gpu_") or name, unit.strip().lower()


def _separator(header: str) -> str:
    for rare in (";", "\t"):
        if rare in header:
            return rare
    # With a space behind every comma of the header, a comma without one is part of a number.
    return ", " if re.search(r", ", header) and not re.search(r",(?! )", header) else ","


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no figure: ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]``, nothing."""
    return cell.startswith("[") or cell.lower() in _MISSING


def comma_is_decimal(cells: Iterable[str]) -> bool | None:
    """Whether commas in these cells are decimal commas; ``None`` when they could be either (``1,234``).

    A comma with one, two or more than three digits behind it, or behind a lone zero, can only be a decimal comma; one
    with a point or a second comma behind it can only part thousands.
    """
    doubtful = False
    for cell in cells:
        number = _NUMBER.match(cell)
        if number is None or "," not in number[0]:
            continue
        head, _, tail = number[0].rpartition(",")
        if "." in head or (tail.isdigit() and "," not in head and (len(tail) != 3 or head.lstrip("+-") in ("", "0"))):
            return True
        if "." in tail or "," in head:
            return False
        doubtful = True
    return None if doubtful else False


def milliwatts(cell: str, *, unit: str, decimal_comma: bool) -> int | None:
    """A cell's power in mW, rounded to whole ones; ``None`` when it is not a power.

    Args:
        cell: a number, with a unit or without.
        unit: what the column's name says; the cell's own goes before it. Watts when neither says.
        decimal_comma: whether a comma is the decimal sign, else it parts thousands.
    """
    number, own_unit = _parse(cell, decimal_comma=decimal_comma)
    factor = _MILLIWATTS.get(own_unit or unit or "w")
    if number is None or factor is None:
        return None
    return int((number * factor).to_integral_value(ROUND_HALF_EVEN))


def share(cell: str, *, decimal_comma: bool) -> float | None:
    """A cell in percent as a share, 0 to 1; ``None`` when it is not a figure from 0 to 100."""
    percent, unit = _parse(cell, decimal_comma=decimal_comma)
    if percent is None or unit not in ("", "%") or not 0 <= percent <= 100:
        return None
    return float(percent / 100)


def _parse(cell: str, *, decimal_comma: bool) -> tuple[Decimal | None, str]:
    """A cell's number, ``None`` when it is none, and its unit in lower case."""
    found = _CELL.fullmatch(cell)
    if found is None:
        return None, ""
    decimal, other = (",", ".") if decimal_comma else (".", ",")
    digits = found[1].replace(other, "").replace(decimal, ".")
    return (None if digits.count(".") > 1 else Decimal(digits)), found[2].lower()


def time_ns(cell: str) -> int | None:
    """A cell's time in ns since the epoch; ``None`` when it is not a time. Without a zone it is taken for UTC.

    A bare number is seconds since the epoch, or milli-, micro- or nanoseconds, by its size.
    """
    if re.fullmatch(r"\d{9,19}(\.\d+)?", cell):
        value = Decimal(cell)
        power = next(p for p, end in ((9, 10**11), (6, 10**14), (3, 10**17), (0, 10**20)) if value < end)
        return int(value.scaleb(power))
    found = _TIME.fullmatch(cell)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    try:
        whole = datetime.datetime(year, month, day, hour, minute, second, tzinfo=_zone(found[8]))
    except ValueError:
        return None
    since = whole - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_S + int((found[7] or "").ljust(9, "0"))


def _zone(text: str | None) -> datetime.timezone:
    if text is None or text == "Z":
        return datetime.UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return datetime.timezone(datetime.timedelta(minutes=-minutes if text[0] == "-" else minutes))


def named(columns: Sequence[str]) -> str:
    """Columns for a message."""
    return ", ".join(repr(column) for column in columns) or "none"
