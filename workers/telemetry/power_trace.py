"""Power as a function of time, with energy known exactly: what the simulated boards draw.

Milliwatts times nanoseconds are picojoules, and every energy here is the difference of two values of one integer
function of time, so energies over adjoining spans add up to the energy over their union, exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Power that goes straight from ``start_mw`` to ``end_mw`` in ``duration_ns`` (above 0)."""

    duration_ns: int
    start_mw: int
    end_mw: int

    def power_mw(self, at_ns: int) -> int:
        """Power ``at_ns`` after the piece began, mW."""
        return self.start_mw + (self.end_mw - self.start_mw) * at_ns // self.duration_ns

    def energy_pj(self, until_ns: int) -> int:
        """Energy from the piece's begin until ``until_ns`` after it, pJ."""
        rise = (self.end_mw - self.start_mw) * until_ns * until_ns // (2 * self.duration_ns)
        return self.start_mw * until_ns + rise

    def clipped(self, limit_mw: int) -> tuple[Piece, ...]:
        """The same course, nowhere above ``limit_mw``."""
        low, high = sorted((self.start_mw, self.end_mw))
        if high <= limit_mw:
            return (self,)
        flat = Piece(duration_ns=self.duration_ns, start_mw=limit_mw, end_mw=limit_mw)
        if low >= limit_mw:
            return (flat,)
        below_ns = self.duration_ns * (limit_mw - low) // (high - low)
        cap_ns = self.duration_ns - below_ns
        capped = Piece(duration_ns=cap_ns, start_mw=limit_mw, end_mw=limit_mw)
        if below_ns == 0:
            return (capped,)
        if self.start_mw < self.end_mw:
            return (Piece(duration_ns=below_ns, start_mw=self.start_mw, end_mw=limit_mw), capped)
        return (capped, Piece(duration_ns=below_ns, start_mw=limit_mw, end_mw=self.end_mw))


@dataclass(frozen=True)
class Trace:
    """Pieces one after the other; then from the start again when it ``repeats``, else the last power holds.

    Times are ns since the trace began.
    """

    pieces: tuple[Piece, ...]
    repeats: bool = False

    @classmethod
    def constant(cls, power_mw: int) -> Trace:
        """One power, for ever."""
        return cls((Piece(duration_ns=1, start_mw=power_mw, end_mw=power_mw),))

    @classmethod
    def square(cls, *, low_mw: int, high_mw: int, period_ns: int) -> Trace:
        """Half of each period low, then half high."""
        half_ns = period_ns // 2
        low = Piece(duration_ns=half_ns, start_mw=low_mw, end_mw=low_mw)
        return cls((low, Piece(duration_ns=period_ns - half_ns, start_mw=high_mw, end_mw=high_mw)), repeats=True)

    @cached_property
    def _ends_ns(self) -> list[int]:
        return list(accumulate(piece.duration_ns for piece in self.pieces))

    @cached_property
    def _energies_pj(self) -> list[int]:
        """Energy drawn before each piece, and of them all."""
        return [0, *accumulate(piece.energy_pj(piece.duration_ns) for piece in self.pieces)]

    def power_mw(self, at_ns: int) -> int:
        """Power at a time, mW."""
        length_ns = self._ends_ns[-1]
        if at_ns >= length_ns and not self.repeats:
            return self.pieces[-1].end_mw
        index, into_ns = self._find(at_ns % length_ns)
        return self.pieces[index].power_mw(into_ns)

    def energy_pj(self, until_ns: int) -> int:
        """Energy from the trace's begin, pJ."""
        length_ns, whole_pj = self._ends_ns[-1], self._energies_pj[-1]
        if until_ns >= length_ns and not self.repeats:
            return whole_pj + self.pieces[-1].end_mw * (until_ns - length_ns)
        rounds, rest_ns = divmod(until_ns, length_ns)
        index, into_ns = self._find(rest_ns)
        return rounds * whole_pj + self._energies_pj[index] + self.pieces[index].energy_pj(into_ns)

    def _find(self, at_ns: int) -> tuple[int, int]:
        """The piece at a time below the trace's length, and how far into it that is."""
        index = bisect_right(self._ends_ns, at_ns)
        return index, at_ns - (self._ends_ns[index - 1] if index else 0)

    def clipped(self, limit_mw: int) -> Trace:
        """The same course, nowhere above ``limit_mw``."""
        return Trace(tuple(part for piece in self.pieces for part in piece.clipped(limit_mw)), self.repeats)


@dataclass(frozen=True, slots=True)
class _Span:
    """From ``start_ns`` on ``trace``, which had begun at ``origin_ns``; ``before_pj`` was drawn until then."""

    start_ns: int
    trace: Trace
    origin_ns: int
    before_pj: int

    def energy_pj(self, until_ns: int) -> int:
        drawn = self.trace.energy_pj(until_ns - self.origin_ns) - self.trace.energy_pj(self.start_ns - self.origin_ns)
        return self.before_pj + drawn


class Timeline:
    """What a board draws, trace after trace, since ``start_ns`` (ns since the epoch)."""

    def __init__(self, start_ns: int, trace: Trace) -> None:
        self.start_ns = start_ns
        self._spans = [_Span(start_ns, trace, start_ns, 0)]

    def begin(self, at_ns: int, trace: Trace, *, origin_ns: int | None = None) -> None:
        """From ``at_ns`` on the board draws ``trace``; what was planned for later is dropped.

        ``origin_ns`` is when the trace began, if it is taken up in its course.
        """
        while len(self._spans) > 1 and self._spans[-1].start_ns >= at_ns:
            self._spans.pop()
        at_ns = max(at_ns, self._spans[-1].start_ns)
        drawn_pj = self._spans[-1].energy_pj(at_ns)
        self._spans.append(_Span(at_ns, trace, at_ns if origin_ns is None else origin_ns, drawn_pj))

    def power_mw(self, at_ns: int) -> int:
        """Power at a time, mW; before the start, that of the start."""
        at_ns = max(at_ns, self.start_ns)
        span = self._at(at_ns)
        return span.trace.power_mw(at_ns - span.origin_ns)

    def energy_pj(self, until_ns: int) -> int:
        """Energy since the start, pJ; 0 before it."""
        return self._at(until_ns).energy_pj(until_ns) if until_ns > self.start_ns else 0

    def forget(self, before_ns: int) -> None:
        """Drop what is only needed for times before ``before_ns``; asking for them afterwards is an error."""
        first = self._index(before_ns)
        del self._spans[:first]

    def _at(self, at_ns: int) -> _Span:
        return self._spans[self._index(at_ns)]

    def _index(self, at_ns: int) -> int:
        return max(0, bisect_right(self._spans, at_ns, key=lambda span: span.start_ns) - 1)
