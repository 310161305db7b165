"""Energy in time × intensity in time: which hours a job drew in, and the mean intensity of what it drew. Pure.

CO2e = Σ over hours of energy × PUE × intensity of that hour. An hour is its number since the epoch, UTC. Energy over
the edge of an hour is split by time, in integer millijoules, as if power had been even over the span: the parts add up.

The mean weighted by energy is kept instead of a sum of grams: energy × PUE × mean is that sum, each factor stays apart,
and a series that is the same in every hour gives the yearly result to the last digit (the mean is an exact fraction
until it is rounded once). The same as a join over columns: cut the spans at full hours (``generate_series`` over the
hours of each), group by hour, join the series by hour, and divide Σ mJ × g by Σ mJ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from workers.units import NS_PER_S, apportion

NS_PER_HOUR = 3600 * NS_PER_S

Draw = tuple[int, int, int]
"""Start and end (ns since the epoch), and the energy drawn between them (mJ)."""


@dataclass(frozen=True, kw_only=True)
class HourlySeries:
    """Intensity hour by hour.

    Attributes:
        source: who says so, of which zone, average or marginal.
        g_per_kwh: hour to gCO2e per kWh; an hour that is not known is not there.
        provisional: hours whose figure is estimated or forecast, not final.
        trouble: why hours may be missing, a clause; ``None`` where nothing went wrong.
    """

    source: str
    g_per_kwh: Mapping[int, float]
    provisional: frozenset[int] = frozenset()
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The mean intensity of some energy.

    Attributes:
        g_per_kwh: weighted by energy, gCO2e per kWh.
        hours: hours in which energy was drawn.
        known: those of them the series has.
        provisional: those of them whose figure is estimated or forecast.
    """

    g_per_kwh: float
    hours: int
    known: int
    provisional: int


def energy_by_hour(draws: Iterable[Draw]) -> dict[int, int]:
    """Millijoules drawn in each hour; their sum is that of the draws, exactly. An instant belongs to its hour."""
    found: dict[int, int] = {}
    for start_ns, end_ns, energy_mj in draws:
        first, last = start_ns // NS_PER_HOUR, max(start_ns, end_ns - 1) // NS_PER_HOUR
        if first == last:
            found[first] = found.get(first, 0) + energy_mj
            continue
        hours = range(first, last + 1)
        inside_ns = [min(end_ns, (hour + 1) * NS_PER_HOUR) - max(start_ns, hour * NS_PER_HOUR) for hour in hours]
        # A log that lost its mind may hold less than nothing; it is not for this to hide that, nor to fail on it.
        sign = -1 if energy_mj < 0 else 1
        for hour, part_mj in zip(hours, apportion(abs(energy_mj), inside_ns), strict=True):
            found[hour] = found.get(hour, 0) + sign * part_mj
    return found


def weigh(by_hour_mj: Mapping[int, int], series: HourlySeries, yearly_g_per_kwh: float) -> Weighted:
    """The mean intensity of energy by hour; an hour the series lacks has the region's yearly figure.

    Energy of 0 mJ, or less in some hour, has the plain mean of its hours; no hours at all have the yearly figure.
    """
    total_mj = sum(by_hour_mj.values())
    weights = by_hour_mj if total_mj > 0 and min(by_hour_mj.values()) >= 0 else dict.fromkeys(by_hour_mj, 1)
    sum_of_weights = sum(weights.values())
    yearly = Fraction(yearly_g_per_kwh)
    weighted = sum(
        (weight * Fraction(series.g_per_kwh.get(hour, yearly)) for hour, weight in weights.items()), Fraction(0)
    )
    return Weighted(
        g_per_kwh=float(weighted / sum_of_weights) if sum_of_weights else yearly_g_per_kwh,
        hours=len(by_hour_mj),
        known=len(by_hour_mj.keys() & series.g_per_kwh.keys()),
        provisional=len(by_hour_mj.keys() & series.provisional),
    )


def hourly_means(points: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Hour to the plain mean of the points (ns since the epoch, g per kWh) that begin in it."""
    grouped: dict[int, list[float]] = {}
    for time_ns, g_per_kwh in points:
        grouped.setdefault(time_ns // NS_PER_HOUR, []).append(g_per_kwh)
    return {hour: float(sum(map(Fraction, values)) / len(values)) for hour, values in grouped.items()}
