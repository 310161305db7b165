"""What one device drew over a recording, as a function of time. Pure, and exact: integers of twice a picojoule.

Power that was sampled runs straight from sample to sample, so the energy is the trapezoid rule's over (time, power). It
is never a sum of samples times a duration, which counts time twice. Energy that was booked is spread evenly over its
entry.
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from workers.contract import EnergyEntry
from workers.units import NS_PER_S, PJ_PER_MJ, apportion

HOLE_NS = 2 * NS_PER_S
"""Samples this far apart, and three times as far as is usual in their log, leave what was drawn in between unknown."""
_HOLE_TIMES = 3
_TWICE = 2
"""Energies are kept in halves of a picojoule: a trapezoid over milliwatts and nanoseconds ends in one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The recording at one instant.

    Attributes:
        energy_mj: drawn since the start of the track, mJ, rounded down.
        power_mw: mW, rounded down.
        knot: place of the last sample or edge at or before the instant.
    """

    energy_mj: int
    power_mw: int
    knot: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    """From one knot to the next: power in mW at both ends, energy in half-picojoules; ``known`` is false in a hole."""

    from_mw: int
    to_mw: int
    energy_2pj: int
    known: bool


class Track:
    """Energy and power of one device from ``start_ns`` to ``end_ns``; make one with ``from_power`` or ``from_entries``.

    Args:
        times: the knots, ns, rising.
        segments: what happens between them.
    """

    def __init__(self, times: Sequence[int], segments: Sequence[_Segment]) -> None:
        self._times, self._segments = tuple(times), tuple(segments)
        self._before_2pj = (0, *itertools.accumulate(segment.energy_2pj for segment in segments))
        self.start_ns, self.end_ns = self._times[0], self._times[-1]

    @property
    def energy_mj(self) -> int:
        """All that was drawn, mJ, rounded down. A hole counts as if power had run straight across it."""
        return self._before_2pj[-1] // (_TWICE * PJ_PER_MJ)

    def at(self, time_ns: int) -> Moment | None:
        """The recording at ``time_ns``; ``None`` before it, after it, and in its holes."""
        if not self.start_ns <= time_ns <= self.end_ns:
            return None
        knot = bisect.bisect_right(self._times, time_ns) - 1
        into_ns = time_ns - self._times[knot]
        if into_ns == 0:
            return self._at_knot(knot)
        segment, whole_ns = self._segments[knot], self._times[knot + 1] - self._times[knot]
        if not segment.known:
            return None
        rise_mw = segment.to_mw - segment.from_mw
        # The straight share, less the bow of the parabola below it: power that rises has drawn less by now.
        bow = rise_mw * into_ns * (whole_ns - into_ns)
        energy_2pj = self._before_2pj[knot] + (segment.energy_2pj * into_ns - bow) // whole_ns
        power_mw = segment.from_mw + rise_mw * into_ns // whole_ns
        return Moment(energy_mj=energy_2pj // (_TWICE * PJ_PER_MJ), power_mw=power_mw, knot=knot)

    def _at_knot(self, knot: int) -> Moment:
        """At a sample or an edge itself, which is known even between two holes; the side that is known tells power."""
        sides = [(segment.known, segment.from_mw) for segment in self._segments[knot : knot + 1]]
        sides += [(segment.known, segment.to_mw) for segment in self._segments[max(0, knot - 1) : knot]]
        power_mw = next((power for known, power in sides if known), sides[0][1])
        return Moment(energy_mj=self._before_2pj[knot] // (_TWICE * PJ_PER_MJ), power_mw=power_mw, knot=knot)

    @classmethod
    def from_power(cls, samples: Sequence[tuple[int, int]]) -> Track:
        """From ``(time ns, power mW)``, times rising.

        Raises:
            ValueError: fewer than two samples, which span no time.
        """
        if len(samples) < 2:
            raise ValueError(f"{len(samples)} samples of power span no time.")
        pairs = list(itertools.pairwise(samples))
        usual_ns = statistics.median_high(end - start for (start, _), (end, _) in pairs)
        hole_ns = max(HOLE_NS, _HOLE_TIMES * usual_ns)
        segments = [
            _Segment(
                from_mw=start_mw,
                to_mw=end_mw,
                energy_2pj=(start_mw + end_mw) * (end_ns - start_ns),
                known=end_ns - start_ns <= hole_ns,
            )
            for (start_ns, start_mw), (end_ns, end_mw) in pairs
        ]
        return cls([time_ns for time_ns, _ in samples], segments)

    @classmethod
    def from_entries(cls, entries: Sequence[EnergyEntry]) -> Track:
        """From the entries of one device, in any order; where accounts share it, their energies add up.

        Raises:
            ValueError: the entries span no time.
        """
        times = sorted({time for entry in entries for time in (entry.start_ns, entry.end_ns)})
        if len(times) < 2:
            raise ValueError(f"{len(entries)} entries of energy span no time.")
        drawn_pj, covered = [0] * (len(times) - 1), [False] * (len(times) - 1)
        for entry in entries:
            first, last = bisect.bisect_left(times, entry.start_ns), bisect.bisect_left(times, entry.end_ns)
            if first == last:
                # An instant: it goes to the stretch that ends there, or begins there.
                drawn_pj[max(0, first - 1)] += entry.energy_mj * PJ_PER_MJ
                continue
            lengths = [times[place + 1] - times[place] for place in range(first, last)]
            for place, part in enumerate(apportion(entry.energy_mj * PJ_PER_MJ, lengths), first):
                drawn_pj[place] += part
                covered[place] = True
        segments = [
            _even(energy_pj, end - start, known)
            for energy_pj, known, (start, end) in zip(drawn_pj, covered, itertools.pairwise(times), strict=True)
        ]
        return cls(times, segments)


def _even(energy_pj: int, length_ns: int, known: bool) -> _Segment:
    """A segment over which the energy comes evenly; mW times ns are pJ."""
    power_mw = energy_pj // length_ns
    return _Segment(from_mw=power_mw, to_mw=power_mw, energy_2pj=_TWICE * energy_pj, known=known)
