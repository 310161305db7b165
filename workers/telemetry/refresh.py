"""How often does a counter refresh? Pure: looks come in, and whether the counter had moved.

A board's counter refreshes every 20 to 100 ms, and a look tells only that a refresh came since the look before. Looks a
few milliseconds apart see each refresh by itself, and so bound the period. With it, one refresh that was seen closely
dates the one before, which was not: that is how the energy at an edge is known on both its sides.
"""

from __future__ import annotations

from workers.units import NS_PER_MS

SLOWEST_NS = 100 * NS_PER_MS
"""No board's counter takes longer than this from one refresh to the next (20 to 100 ms on measured boards)."""
CLOSE_NS = 8 * NS_PER_MS
"""Looks no further apart than this see every refresh by itself, with room for a late one."""


class RefreshPeriod:
    """The period of one counter, in ns, by bounds that every pair of refreshes seen closely narrows.

    Bounds that contradict the known ones replace them: the period changed, or refreshes are off their beat.
    """

    def __init__(self) -> None:
        self._looked_ns: int | None = None
        self._widest_ns = 0
        # Bounds of the last refresh, and of the period.
        self._last: tuple[int, int] | None = None
        self._bounds: tuple[int, int] | None = None

    @property
    def known_ns(self) -> int | None:
        """The period, once it is known to a few milliseconds."""
        return sum(self._bounds) // 2 if self._bounds and self._bounds[1] - self._bounds[0] <= CLOSE_NS else None

    def look(self, time_ns: int, *, moved: bool) -> None:
        """A look at ``time_ns``, at which the counter had ``moved``, or not, since the look before."""
        after_ns, self._looked_ns = self._looked_ns, time_ns
        if after_ns is None:
            return
        self._widest_ns = max(self._widest_ns, time_ns - after_ns)
        if not moved:
            return
        # Were all looks since the last refresh close ones, then none was missed.
        if self._last is not None and after_ns > self._last[1] and self._widest_ns <= CLOSE_NS:
            self._narrow(after_ns - self._last[1], time_ns - self._last[0])
        self._last = (after_ns, time_ns) if time_ns - after_ns <= CLOSE_NS else None
        self._widest_ns = 0

    def restart(self) -> None:
        """The counter started anew: when its next refresh comes is open."""
        self._last = None

    def _narrow(self, shortest_ns: int, longest_ns: int) -> None:
        low_ns, high_ns = self._bounds or (shortest_ns, longest_ns)
        low_ns, high_ns = max(low_ns, shortest_ns), min(high_ns, longest_ns)
        self._bounds = (low_ns, high_ns) if low_ns <= high_ns else (shortest_ns, longest_ns)
