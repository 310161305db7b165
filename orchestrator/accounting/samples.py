"""A device's counter as a server sampled it: what it grew by between any two times. Pure.

Samples come late, twice, out of order, from two series of one device, or not at all; the counter may start anew in
between. Growth is the difference of two values of the counter, each linear between the two samples around it, so what
is missing between the edges costs nothing.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workers.units import NS_PER_S

TOLERANCE_NS = 60 * NS_PER_S
"""Two samples further apart than this do not tell what the counter was in between: four of Prometheus' default scrapes
(15 s)."""

Sample = tuple[int, float]
"""Time (ns since the epoch) and counter (J)."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Samples that carry the same labels, in any order."""

    labels: Mapping[str, str]
    samples: tuple[Sample, ...]


class CounterCurve:
    """A counter over time, resets bridged, so that it only rises.

    A counter that fell started anew, at some time between two samples; what it would have shown is bridged with the
    power its samples show before and after, and ``was_reset`` tells of it.

    Args:
        samples: in any order; what is no finite number, or below 0, is none. Of two at one time the later given counts.
        tolerance_ns: how far apart the two samples around a time may be for the value in between to be known.
    """

    def __init__(self, samples: Iterable[Sample], *, tolerance_ns: int = TOLERANCE_NS) -> None:
        whole = sorted({time_ns: value for time_ns, value in samples if math.isfinite(value) and value >= 0}.items())
        self._tolerance_ns = tolerance_ns
        self._times = [time_ns for time_ns, _ in whole]
        self._values, self._resets = _lifted(whole)

    @property
    def span(self) -> tuple[int, int] | None:
        """Times of the first and the last sample; ``None`` without any."""
        return (self._times[0], self._times[-1]) if self._times else None

    def at(self, time_ns: int) -> float | None:
        """The risen counter, J; ``None`` where no sample is on one side, or the two are too far apart."""
        place = bisect.bisect_left(self._times, time_ns)
        if place < len(self._times) and self._times[place] == time_ns:
            return self._values[place]
        if place in (0, len(self._times)):
            return None
        earlier_ns, later_ns = self._times[place - 1], self._times[place]
        if later_ns - earlier_ns > self._tolerance_ns:
            return None
        before, after = self._values[place - 1], self._values[place]
        return before + (after - before) * (time_ns - earlier_ns) / (later_ns - earlier_ns)

    def between(self, start_ns: int, end_ns: int) -> float | None:
        """Joules it grew by from ``start_ns`` to ``end_ns``; ``None`` where either end is not known."""
        at_start, at_end = self.at(start_ns), self.at(end_ns)
        return None if at_start is None or at_end is None else at_end - at_start

    def times(self, start_ns: int, end_ns: int) -> list[int]:
        """Times of the samples between two times, without those at the ends."""
        return self._times[bisect.bisect_right(self._times, start_ns) : bisect.bisect_left(self._times, end_ns)]

    def was_reset(self, start_ns: int, end_ns: int) -> bool:
        """Whether the growth over that time holds a bridge."""
        return any(before_ns < end_ns and after_ns > start_ns for before_ns, after_ns in self._resets)


def put_together(series: Sequence[Series]) -> list[Sample]:
    """One counter out of the series of one device, by time.

    An exporter that moved to another port ends one series and begins another; the later one goes on where the earlier
    ended. Two that run side by side (a device scraped twice) are never mixed, since each is read a moment apart, and a
    mixed counter would seem to fall.
    """
    ordered = sorted((sorted(one.samples) for one in series if one.samples), key=lambda samples: samples[0])
    joined: list[Sample] = []
    for samples in ordered:
        joined += samples if not joined else [sample for sample in samples if sample[0] > joined[-1][0]]
    return joined


def _lifted(samples: Sequence[Sample]) -> tuple[list[float], list[tuple[int, int]]]:
    """Values that only rise, and the times around each reset."""
    values = [value for _, value in samples[:1]]
    resets: list[tuple[int, int]] = []
    for place, ((before_ns, before), (time_ns, value)) in enumerate(itertools.pairwise(samples), start=1):
        if value >= before:
            values.append(values[-1] + (value - before))
        else:
            values.append(values[-1] + _bridge_j(samples, place))
            resets.append((before_ns, time_ns))
    return values, resets


def _bridge_j(samples: Sequence[Sample], place: int) -> float:
    """Joules between the sample before a reset and the one after it, at ``place``: the power around it over the time.

    Where neither side has two samples, what the new count shows is all that is known.
    """
    watts = [
        _watts(samples[i], samples[j])
        for i, j in ((place - 2, place - 1), (place, place + 1))
        if i >= 0 and j < len(samples) and samples[j][1] >= samples[i][1]
    ]
    if not watts:
        return samples[place][1]
    return sum(watts) / len(watts) * (samples[place][0] - samples[place - 1][0]) / NS_PER_S


def _watts(earlier: Sample, later: Sample) -> float:
    return (later[1] - earlier[1]) * NS_PER_S / (later[0] - earlier[0])
