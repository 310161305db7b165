"""The physics of a GPU board: what it draws, exactly, and what its sensors show of it.

Pure: time comes in with every call, in ns since the epoch; energy is integer picojoules. The simulated meter and the
simulated driver stand on this one model. A board draws a *trace* of power, or follows the *load* its processes put on
it: idle + share x (limit - idle). What it shows, every ``refresh_ms``:

- a counter (exact at its last refresh, stale by up to one refresh, anew from 0 after a reset; none on old boards);
- sampled power: the mean over the ``sample_window_ms`` before the last refresh, so with 25 of every 100 ms what happens
  in the other 75 is never seen;
- averaged power: the mean of the samples of the last second.

A power limit is obeyed at once: it clips a trace, and slows the work by ``speed``. Not modelled: thermal drift, boost
clocks, a sensor's bias, the time a real board takes to settle on a new limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from workers.telemetry.power_trace import Timeline, Trace
from workers.telemetry.profiles import CAP_SPEED_EXPONENT, BoardProfile
from workers.units import MW_PER_W, NS_PER_MS, PJ_PER_MJ


class Board:
    """One board, idle since ``now_ns``.

    Args:
        counted_mj: what its counter stands at, mJ: drivers count since they were loaded.
        offset_ns: how long after ``now_ns`` the first refresh of its sensors comes.
    """

    def __init__(self, profile: BoardProfile, *, now_ns: int, counted_mj: int = 0, offset_ns: int = 0) -> None:
        self.profile = profile
        self.limit_mw = profile.tdp_w * MW_PER_W
        self.processes: dict[int, float] = {}
        self._born_ns, self._offset_ns = now_ns, offset_ns
        self._trace: tuple[Trace, int] | None = None
        self._line = Timeline(now_ns, Trace.constant(self.idle_mw))
        # Since when the counter runs, and what it stood at then.
        self._resets: list[tuple[int, int, int]] = [(now_ns, 0, counted_mj)]

    @property
    def idle_mw(self) -> int:
        """Power with nothing to do, mW."""
        return self.profile.idle_w * MW_PER_W

    @property
    def speed(self) -> float:
        """Pace of work on this board now: the profile's, less what the power limit takes."""
        full = self.profile.tdp_w * MW_PER_W
        left = (self.limit_mw - self.idle_mw) / (full - self.idle_mw)
        return float(self.profile.speed * left**CAP_SPEED_EXPONENT)

    def draw(self, at_ns: int, trace: Trace) -> None:
        """From ``at_ns`` on draw ``trace``, whatever the processes do."""
        self._trace = (trace, at_ns)
        self._line.begin(at_ns, trace.clipped(self.limit_mw))

    def load(self, at_ns: int, processes: Mapping[int, float]) -> None:
        """From ``at_ns`` on each process (by pid) keeps a share of the board busy, 0 to 1; shares above 1 queue."""
        self.processes = dict(processes)
        self._trace = None
        busy = min(1.0, max(0.0, sum(processes.values())))
        power_mw = self.idle_mw + round(busy * (self.limit_mw - self.idle_mw))
        self._line.begin(at_ns, Trace.constant(power_mw))

    def set_limit(self, at_ns: int, limit_mw: int) -> None:
        """From ``at_ns`` on draw no more than ``limit_mw``."""
        self.limit_mw = limit_mw
        if self._trace is None:
            self.load(at_ns, self.processes)
        else:
            trace, origin_ns = self._trace
            self._line.begin(at_ns, trace.clipped(limit_mw), origin_ns=origin_ns)

    def reset(self, at_ns: int) -> None:
        """The counter starts anew from 0, as after a reload of the driver."""
        self._resets = [kept for kept in self._resets if kept[0] < at_ns]
        self._resets.append((at_ns, self._line.energy_pj(at_ns), 0))

    def forget(self, before_ns: int) -> None:
        """Keep no course of power from before ``before_ns``; sums are kept. Leave the sensors at least 2 s."""
        self._line.forget(before_ns)

    def true_power_mw(self, at_ns: int) -> int:
        """What it draws, mW."""
        return self._line.power_mw(at_ns)

    def true_energy_pj(self, start_ns: int, end_ns: int) -> int:
        """What it drew from ``start_ns`` to ``end_ns``, pJ, exactly; times before it was born count nothing."""
        return self._line.energy_pj(end_ns) - self._line.energy_pj(start_ns)

    def refreshed_ns(self, at_ns: int) -> int:
        """When its sensors were refreshed last; the birth before the first refresh."""
        refresh_ns = self.profile.refresh_ms * NS_PER_MS
        since_ns = at_ns - self._born_ns - self._offset_ns
        return max(self._born_ns, at_ns - since_ns % refresh_ns) if since_ns >= 0 else self._born_ns

    def counter_mj(self, at_ns: int) -> int | None:
        """The energy counter, mJ; ``None`` on a board without."""
        if not self.profile.has_counter:
            return None
        since_ns, before_pj, counted_mj = next(reset for reset in reversed(self._resets) if reset[0] <= at_ns)
        shown_ns = max(since_ns, self.refreshed_ns(at_ns))
        return counted_mj + (self._line.energy_pj(shown_ns) - before_pj) // PJ_PER_MJ

    def sampled_mw(self, at_ns: int) -> int:
        """Power by its sensor, mW: what NVML calls instantaneous."""
        return self._mean_mw(self.refreshed_ns(at_ns), samples=1)

    def averaged_mw(self, at_ns: int) -> int:
        """Mean of the sensor's samples of the last second, mW."""
        return self._mean_mw(self.refreshed_ns(at_ns), samples=max(1, 1000 // self.profile.refresh_ms))

    def usage_mw(self, at_ns: int) -> int:
        """What ``nvmlDeviceGetPowerUsage`` answers on this type of board, mW."""
        return self.averaged_mw(at_ns) if self.profile.usage_average_ms else self.sampled_mw(at_ns)

    def utilization(self, at_ns: int) -> float:
        """Busy share by the power it draws above idle, 0 to 1."""
        return min(1.0, max(0.0, (self.true_power_mw(at_ns) - self.idle_mw) / (self.limit_mw - self.idle_mw)))

    def _mean_mw(self, refreshed_ns: int, *, samples: int) -> int:
        window_ns, refresh_ns = self.profile.sample_window_ms * NS_PER_MS, self.profile.refresh_ms * NS_PER_MS
        energy_pj = seen_ns = 0
        for number in range(samples):
            end_ns = refreshed_ns - number * refresh_ns
            start_ns = max(self._born_ns, end_ns - window_ns)
            if end_ns > start_ns:
                energy_pj += self.true_energy_pj(start_ns, end_ns)
                seen_ns += end_ns - start_ns
        return energy_pj // seen_ns if seen_ns else self.true_power_mw(self._born_ns)
