"""Simulated boards: physics that is consistent and known, and load that follows a real process.

A board's power is idle + utilisation x (limit - idle), where the utilisation is the processor time the leaseholder
really used since the last look. Its energy is integrated exactly (mW x ns = pJ, in integers), and what it *shows* is
a counter that refreshes every ``refresh_ms``, as hardware does. A power limit is always obeyed and slows the work.

Not modelled yet: thermal drift, power averaging windows, part-time sampling, resets, losses, permissions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import psutil

from workers.contract import Device, Lease, Method, Reading
from workers.errors import CapError
from workers.telemetry.meter import LimitRange, find_device
from workers.telemetry.profiles import CAP_SPEED_EXPONENT, BoardProfile, board_profile
from workers.units import MW_PER_W, NS_PER_S, PJ_PER_MJ


class SimulatedBoard:
    """One board. Time is given at every call and never goes back; the truth is ``true_energy_pj``."""

    def __init__(self, profile: BoardProfile, *, now_ns: int) -> None:
        self.profile = profile
        self.limit_mw = profile.tdp_w * MW_PER_W
        self.true_energy_pj = 0
        self._shown_pj = 0
        self._power_mw = profile.idle_w * MW_PER_W
        self._utilization = 0.0
        self._born_ns = self._now_ns = now_ns

    @property
    def speed(self) -> float:
        """Pace of work on this board now: the profile's, less what the power limit takes."""
        idle, full = self.profile.idle_w * MW_PER_W, self.profile.tdp_w * MW_PER_W
        return float(self.profile.speed * ((self.limit_mw - idle) / (full - idle)) ** CAP_SPEED_EXPONENT)

    def advance(self, now_ns: int, utilization: float) -> None:
        """Let time pass: the board was ``utilization`` busy (0 to 1) since the last call."""
        elapsed_ns = max(0, now_ns - self._now_ns)
        idle = self.profile.idle_w * MW_PER_W
        self._utilization = min(1.0, max(0.0, utilization))
        self._power_mw = idle + round(self._utilization * (self.limit_mw - idle))
        refresh_ns = self.profile.refresh_ms * NS_PER_S // 1000
        refreshed_ns = now_ns - (now_ns - self._born_ns) % refresh_ns
        if refreshed_ns > self._now_ns:
            self._shown_pj = self.true_energy_pj + self._power_mw * (refreshed_ns - self._now_ns)
        self.true_energy_pj += self._power_mw * elapsed_ns
        self._now_ns += elapsed_ns

    def reading(self, device: str) -> Reading:
        """What the board shows at the time it was last advanced to."""
        return Reading(
            device=device,
            time_ns=self._now_ns,
            energy_mj=self._shown_pj // PJ_PER_MJ,
            power_mw=self._power_mw,
            limit_mw=self.limit_mw,
            utilization=self._utilization,
        )


def process_cpu_seconds(pid: int) -> float | None:
    """Processor time a process has used so far, s; ``None`` when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


class SimulatedMeter:
    """A node of simulated boards. Behaves as ``PowerMeter`` says; ``set_limit`` never lacks permission."""

    def __init__(
        self,
        models: tuple[str, ...],
        *,
        node: str,
        clock_ns: Callable[[], int],
        cpu_seconds: Callable[[int], float | None] = process_cpu_seconds,
    ) -> None:
        self._clock_ns = clock_ns
        self._cpu_seconds = cpu_seconds
        self._devices = tuple(
            Device(uuid=_uuid(node, index), index=index, model=model, method=Method.SIMULATED)
            for index, model in enumerate(models)
        )
        now_ns = clock_ns()
        self.boards = {d.uuid: SimulatedBoard(board_profile(d.model), now_ns=now_ns) for d in self._devices}
        self._read_ns = dict.fromkeys(self.boards, now_ns)
        self._holders: dict[str, dict[str, tuple[Lease, float]]] = {uuid: {} for uuid in self.boards}

    def devices(self) -> tuple[Device, ...]:
        """The boards, by index."""
        return self._devices

    def read(self, device: str) -> Reading:
        """Advance the board by what its holders did since the last read, then look."""
        find_device(self._devices, device)
        now_ns = self._clock_ns()
        board = self.boards[device]
        board.advance(now_ns, self._utilization(device, now_ns))
        self._read_ns[device] = now_ns
        return board.reading(device)

    def _utilization(self, device: str, now_ns: int) -> float:
        """Busy share of the board since the last read: the holders' processor time, at this board's pace."""
        elapsed_s = (now_ns - self._read_ns[device]) / NS_PER_S
        busy = 0.0
        for lease_id, (lease, before_s) in list(self._holders[device].items()):
            used_s = self._cpu_seconds(lease.pid)
            if used_s is None:
                continue
            self._holders[device][lease_id] = (lease, used_s)
            busy += max(0.0, used_s - before_s) / (lease.cpus * self.boards[device].speed)
        return busy / elapsed_s if elapsed_s > 0 else 0.0

    def limit_range(self, device: str) -> LimitRange:
        """The profile's lowest limit up to its TDP."""
        profile = self.boards[find_device(self._devices, device).uuid].profile
        full = profile.tdp_w * MW_PER_W
        return LimitRange(min_mw=profile.min_limit_w * MW_PER_W, max_mw=full, default_mw=full)

    def set_limit(self, device: str, limit_mw: int) -> None:
        """Obeyed from the next read on."""
        allowed = self.limit_range(device)
        if not allowed.min_mw <= limit_mw <= allowed.max_mw:
            raise CapError(
                f"{device} takes {allowed.min_mw // MW_PER_W} to {allowed.max_mw // MW_PER_W} W, not "
                f"{limit_mw / MW_PER_W:g} W. Choose a limit in that range."
            )
        self.read(device)
        self.boards[device].limit_mw = limit_mw

    def attach(self, lease: Lease) -> None:
        """From now on the boards of the lease follow its process."""
        for device in lease.devices:
            self._holders[device][lease.lease_id] = (lease, self._cpu_seconds(lease.pid) or 0.0)

    def detach(self, lease: Lease) -> None:
        """The boards forget the process."""
        for device in lease.devices:
            self._holders[device].pop(lease.lease_id, None)

    def speed(self, device: str) -> float | None:
        """The board's pace under its present limit."""
        return self.boards[device].speed

    def close(self) -> None:
        """Nothing to let go of."""


def _uuid(node: str, index: int) -> str:
    """A UUID in NVML's form that says it is simulated and stays the same for a node's n-th board."""
    digest = hashlib.sha256(f"{node}/{index}".encode()).hexdigest()
    return f"GPU-sim-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:28]}"
