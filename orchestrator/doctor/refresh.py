"""How often does a device's counter show a new value? Found by looking at it for a third of a second."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from workers.errors import MeterError
from workers.telemetry.meter import PowerMeter
from workers.units import NS_PER_MS

LOOK_NS = 350_000_000
"""Three refreshes of the slowest boards, which take 100 ms."""
PAUSE_S = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """What was seen: the median time between two moves of the counter, and between two looks at it, ms."""

    interval_ms: float
    look_ms: float

    @property
    def is_bound(self) -> bool:
        """Whether the looks were too far apart to tell more than that it refreshes at least so often."""
        return self.interval_ms < 2 * self.look_ms


def measure_refresh(
    meter: PowerMeter,
    device: str,
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    pause_s: Callable[[float], None] = time.sleep,
) -> Refresh | None:
    """Look at a counter for ``LOOK_NS``.

    ``None`` when it did not move three times, which is what two intervals need, has none or could not be read.
    """
    looks_ns, moves_ns, shown_mj = [clock_ns()], list[int](), None
    while looks_ns[-1] - looks_ns[0] < LOOK_NS:
        try:
            energy_mj = meter.read(device).energy_mj
        except MeterError:
            return None
        if shown_mj is not None and energy_mj != shown_mj:
            moves_ns.append(looks_ns[-1])
        shown_mj = energy_mj
        pause_s(PAUSE_S)
        looks_ns.append(clock_ns())
    if len(moves_ns) < 3:
        return None
    return Refresh(interval_ms=_median_ms(moves_ns), look_ms=_median_ms(looks_ns))


def _median_ms(times_ns: list[int]) -> float:
    return statistics.median(after - before for before, after in itertools.pairwise(times_ns)) / NS_PER_MS
