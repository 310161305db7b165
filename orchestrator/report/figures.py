"""Figures as people read them: significant digits, SI-friendly units, no exponents; unknown is a dash. Pure.

The page and the terminal's tables both use these, so a figure looks the same in both.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.compare.table import Bounds, Spread
from workers.units import NS_PER_S

UNKNOWN = "–"
_MINUS = "−"
_MOST_DECIMALS = 12


@dataclass(frozen=True)
class Unit:
    """How a column is shown.

    Attributes:
        symbol: as printed (``mWh``).
        factor: what a value in the column's base unit is multiplied by.
    """

    symbol: str
    factor: float


_ENERGY = (Unit("µWh", 1e9), Unit("mWh", 1e6), Unit("Wh", 1e3), Unit("kWh", 1.0), Unit("MWh", 1e-3))
"""From kWh."""
_MASS = (Unit("ng", 1e9), Unit("µg", 1e6), Unit("mg", 1e3), Unit("g", 1.0), Unit("kg", 1e-3), Unit("t", 1e-6))
"""From g."""
_WH, _GRAM = _ENERGY[2], _MASS[3]


def energy_unit(values_kwh: Iterable[float | None]) -> Unit:
    """One unit for a column of energies in kWh: Wh unless the middle one would be unreadable in it."""
    return _unit(values_kwh, _ENERGY, _WH)


def mass_unit(values_g: Iterable[float | None]) -> Unit:
    """One unit for a column of masses in grams: g unless the middle one would be unreadable in it."""
    return _unit(values_g, _MASS, _GRAM)


def format_number(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """``value`` with that many significant digits, thousands grouped by commas; ``–`` when unknown.

    Whole digits are never dropped: 12,345 stays 12,345 at three digits.
    """
    if value is None:
        return UNKNOWN
    return _fixed(value, _decimals(value, digits), signed=signed)


def format_wh(value_kwh: float | None) -> str:
    """An energy in kWh, in the unit that suits it: ``12.3 Wh``."""
    return _with_unit(value_kwh, energy_unit([value_kwh]))


def format_g(value_g: float | None) -> str:
    """A mass in grams, in the unit that suits it: ``4.56 mg``."""
    return _with_unit(value_g, mass_unit([value_g]))


def format_percent(value: float | None, *, signed: bool = True) -> str:
    """A percentage with its sign: ``+12.3 %``."""
    return UNKNOWN if value is None else f"{format_number(value, signed=signed)} %"


def format_duration(seconds: float | None) -> str:
    """A stretch of time: ``42 s``, ``3 min``, ``2 h 05 min``, ``4 d 03 h``; ``–`` when unknown."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def format_time(time_ns: int) -> str:
    """A moment, to the second: ``2026-11-25 18:04:05Z``."""
    return f"{datetime.datetime.fromtimestamp(time_ns // NS_PER_S, tz=datetime.UTC):%Y-%m-%d %H:%M:%S}Z"


def format_spread(spread: Spread, unit: Unit | None = None, *, digits: int = 3, signed: bool = False) -> str:
    """Mean ± sample standard deviation: ``12.30 ± 0.45``; ``12.3 ± –`` for one value; ``–`` for none.

    The deviation has two significant digits, and the mean as many decimals. The unit's symbol is left to the
    column's heading.
    """
    mean, sd = split_spread(spread, unit, digits=digits, signed=signed)
    return f"{mean} ± {sd}" if spread.n else mean


def split_spread(spread: Spread, unit: Unit | None = None, *, digits: int = 3, signed: bool = False) -> tuple[str, str]:
    """The two halves of ``format_spread``."""
    shown = spread.scaled(unit.factor) if unit else spread
    if shown.mean is None or not shown.sd:
        return format_number(shown.mean, digits=digits, signed=signed), UNKNOWN if shown.sd is None else "0"
    decimals = _spread_decimals(shown.mean, shown.sd)
    sd = _fixed(shown.sd, decimals)
    return _fixed(shown.mean, decimals, signed=signed), sd if sd.strip("0.") else format_number(shown.sd, digits=1)


def format_interval(spread: Spread, unit: Unit | None = None) -> str:
    """The 95 % interval, with the decimals of its mean or more: ``0.034 to 6.4``; ``–`` where no spread is known."""
    shown = spread.scaled(unit.factor) if unit else spread
    if shown.mean is None or shown.low is None or shown.high is None or not shown.sd:
        return UNKNOWN
    least = _spread_decimals(shown.mean, shown.sd)
    low, high = (_fixed(end, max(least, _decimals(end, 2))) for end in (shown.low, shown.high))
    return f"{low} to {high}"


def format_bounds(bounds: Bounds | None, unit: Unit) -> str:
    """Both ends, two significant digits each or more: ``0.034 to 6.4``; ``–`` where they are not known."""
    if bounds is None:
        return UNKNOWN
    low, high = bounds.low * unit.factor, bounds.high * unit.factor
    return f"{format_number(low)} to {format_number(high)}"


def _spread_decimals(mean: float, sd: float) -> int:
    """Two digits of the deviation, but between two and about five digits of the mean."""
    least = _decimals(mean, 2)
    return min(max(_decimals(sd, 2), least), least + 3)


def _unit(values: Iterable[float | None], units: Sequence[Unit], base: Unit) -> Unit:
    """The largest unit in which the median is at least 1; the base unit is readable from 0.1."""
    known = [abs(value) for value in values if value]
    if not known:
        return base
    middle = statistics.median(known)
    fitting = [unit for unit in units if middle * unit.factor >= (0.1 if unit is base else 1)]
    return fitting[-1] if fitting else units[0]


def _with_unit(value: float | None, unit: Unit) -> str:
    return UNKNOWN if value is None else f"{format_number(value * unit.factor)} {unit.symbol}"


def _decimals(value: float, digits: int) -> int:
    """Decimals that show ``digits`` significant digits of ``value`` once it is rounded (0.9996 has one less)."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return min(max(digits - 1 - exponent, 0), _MOST_DECIMALS)


def _fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    text = f"{abs(value):,.{decimals}f}"
    if not text.strip("0.,"):
        return text
    plus = "+" if signed else ""
    return f"{_MINUS if value < 0 else plus}{text}"
