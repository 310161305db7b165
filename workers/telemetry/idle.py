"""What does a board draw when nobody holds it? Known from before an edge, it tells a job's joules from idle's. Pure."""

from __future__ import annotations

from collections import deque

from workers.units import NS_PER_S, PJ_PER_MJ

SPELL_NS = NS_PER_S
"""Over this long a device's counter tells to a tenth what it draws idle, whatever its power sensor says."""
DOUBT = 5
"""A sensor that is off by more than the fifth part of what the counter says is not believed."""


class IdlePower:
    """The idle power of one board, learned while nobody holds it.

    Sensor and counter differ much on some boards, and a sensor that samples part of the time misses what comes and
    goes; it is the counter's joules that are split.

    Args:
        looks_back_ns: how far back a power reading may look: so long after an edge it still tells of what was before.

    Attributes:
        known_mw: mW; ``None`` until it is learned.
    """

    def __init__(self, *, looks_back_ns: int) -> None:
        self.known_mw: int | None = None
        self._looks_back_ns, self._since_ns = looks_back_ns, 0
        # What was booked up to when, over the last ``SPELL_NS`` of this spell of idleness.
        self._spell: deque[tuple[int, int]] = deque()

    def begin(self, time_ns: int) -> None:
        """The device changed hands, or was looked at for the first time."""
        self._since_ns = max(self._since_ns, time_ns)
        self._spell.clear()

    def booked(self, until_ns: int, total_mj: int) -> None:
        """All that was drawn up to ``until_ns`` is booked, and that is ``total_mj`` since the books began."""
        self._spell.append((until_ns, total_mj))
        while len(self._spell) > 1 and until_ns - self._spell[1][0] >= SPELL_NS:
            self._spell.popleft()

    def sensed(self, time_ns: int, power_mw: int) -> None:
        """The idle device's sensor shows ``power_mw``."""
        if time_ns - self._since_ns < self._looks_back_ns:
            return
        self.known_mw = power_mw
        counted_mw = self._counted_mw()
        if counted_mw is not None and abs(power_mw - counted_mw) * DOUBT > counted_mw:
            self.known_mw = counted_mw

    def _counted_mw(self) -> int | None:
        if len(self._spell) < 2:
            return None
        (from_ns, from_mj), (until_ns, until_mj) = self._spell[0], self._spell[-1]
        if until_ns - from_ns < SPELL_NS:
            return None
        return (until_mj - from_mj) * PJ_PER_MJ // (until_ns - from_ns)
