"""Simulated boards: physics that is consistent and known, and load that follows a real process.

A board's power is idle + utilisation x (limit - idle), where the utilisation is the processor time the leaseholder
really used since the last look. Its energy is integrated exactly (mW x ns = pJ, in integers), and what it *shows* is
a counter that refreshes every ``refresh_ms``, as hardware does. A power limit is always obeyed and slows the work.

The physics is ``board.py``'s. Resets, losses, sentinels, permissions and part-time sampling are the simulated driver's,
on the same physics; this meter's boards never fail.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workers.contract import Device, Lease, Method, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.board import Board
from workers.telemetry.meter import LimitRange
from workers.telemetry.profiles import BoardProfile, board_profile
from workers.units import MW_PER_W, NS_PER_S, PJ_PER_MJ

SENSOR_MEMORY_NS = 2 * NS_PER_S
"""How long a board's course of power is kept: what its slowest sensor looks back on, with room."""


class SimulatedBoard:
    """One board, advanced from outside to ``now_ns``, which never goes back; the truth is ``true_energy_pj``.

    ``drawn_pj`` is what it drew before ``now_ns``.
    """

    def __init__(self, profile: BoardProfile, *, now_ns: int, drawn_pj: int = 0) -> None:
        self.profile = profile
        self.now_ns = self._born_ns = now_ns
        self._before_pj = drawn_pj
        self._board = Board(profile, now_ns=now_ns, counted_mj=drawn_pj // PJ_PER_MJ)
        self._utilization = 0.0

    @property
    def limit_mw(self) -> int:
        """The power limit, mW; what is set here holds from ``now_ns`` on."""
        return self._board.limit_mw

    @limit_mw.setter
    def limit_mw(self, limit_mw: int) -> None:
        self._board.set_limit(self.now_ns, limit_mw)

    @property
    def true_energy_pj(self) -> int:
        """What the board drew so far, pJ."""
        return self._before_pj + self._board.true_energy_pj(self._born_ns, self.now_ns)

    @property
    def speed(self) -> float:
        """Pace of work on this board now: the profile's, less what the power limit takes."""
        return self._board.speed

    def advance(self, now_ns: int, utilization: float) -> None:
        """Let time pass: the board was ``utilization`` busy (0 to 1) since the last call; no time, no change."""
        if now_ns <= self.now_ns:
            return
        self._utilization = min(1.0, max(0.0, utilization))
        self._board.load(self.now_ns, {0: self._utilization})
        self.now_ns = now_ns
        self._board.forget(now_ns - SENSOR_MEMORY_NS)

    def reading(self, device: str) -> Reading:
        """What the board shows at the time it was last advanced to.

        Its power is what it drew since the look before, an ideal sensor's: the load is only known after the fact.
        """
        return Reading(
            device=device,
            time_ns=self.now_ns,
            energy_mj=self._board.counter_mj(self.now_ns),
            power_mw=self._board.true_power_mw(self.now_ns),
            limit_mw=self.limit_mw,
            utilization=self._utilization,
        )


def process_cpu_seconds(pid: int) -> float | None:
    """Processor time a process has used so far, s; ``None`` when it is gone."""
    # The clock that the kernel keeps of a process (clock_getcpuclockid(3)): one call, where procfs takes five files.
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


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
        self._holders: dict[str, dict[str, tuple[Lease, float]]] = {uuid: {} for uuid in self.boards}
        self._used_ns: dict[str, Counter[int]] = {}

    def devices(self) -> tuple[Device, ...]:
        """The boards, by index."""
        return self._devices

    def read(self, device: str) -> Reading:
        """Advance the board by what its holders did since the last read, then look."""
        board, now_ns = self._board(device), self._clock_ns()
        elapsed_s = (now_ns - board.now_ns) / NS_PER_S
        if elapsed_s > 0:
            board.advance(now_ns, self._busy_s(device) / elapsed_s)
        return board.reading(device)

    def sense(self, device: str) -> Reading:
        """A whole look: it costs nothing here."""
        return self.read(device)

    def _busy_s(self, device: str) -> float:
        """Seconds the board was busy since the last read: the holders' processor time, at this board's pace."""
        busy_s = 0.0
        for lease_id, (lease, before_s) in list(self._holders[device].items()):
            used_s = self._cpu_seconds(lease.pid)
            if used_s is None:
                continue
            self._holders[device][lease_id] = (lease, used_s)
            held_s = max(0.0, used_s - before_s) / (lease.cpus * self.boards[device].speed)
            busy_s += held_s
            if device in self._used_ns:
                self._used_ns[device][lease.pid] += round(held_s * NS_PER_S)
        return busy_s

    def process_use(self, device: str) -> Mapping[int, int]:
        """By the processor time of the holders up to the last read, which is what kept the board busy."""
        self._board(device)
        used, self._used_ns[device] = self._used_ns.get(device, Counter()), Counter()
        return used

    def limit_range(self, device: str) -> LimitRange:
        """The profile's lowest limit up to its TDP."""
        board = self._board(device)
        full = board.profile.tdp_w * MW_PER_W
        return LimitRange(
            min_mw=board.profile.min_limit_w * MW_PER_W, max_mw=full, default_mw=full, set_mw=board.limit_mw
        )

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

    def _board(self, device: str) -> SimulatedBoard:
        if device not in self.boards:
            raise MeterError(f"{device} is not a board of this node: {', '.join(self.boards)}.")
        return self.boards[device]

    def attach(self, lease: Lease) -> None:
        """From now on the boards of the lease follow its process."""
        for device in lease.devices:
            self._holders[device][lease.lease_id] = (lease, self._cpu_seconds(lease.pid) or 0.0)

    def detach(self, lease: Lease) -> None:
        """The boards forget the process."""
        for device in lease.devices:
            self._holders[device].pop(lease.lease_id, None)

    def memory(self) -> Mapping[str, Any]:
        """Of each board when it was advanced last, what it drew, its limit, and its holders' processor time."""
        return {
            uuid: {
                "now_ns": board.now_ns,
                "drawn_pj": board.true_energy_pj,
                "limit_mw": board.limit_mw,
                "used_s": {lease_id: used_s for lease_id, (_, used_s) in self._holders[uuid].items()},
            }
            for uuid, board in self.boards.items()
        }

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:
        """The boards go on, busy meanwhile with what the processes that still hold them did."""
        for uuid in self.boards.keys() & memory.keys():
            known = memory[uuid]
            board = SimulatedBoard(self.boards[uuid].profile, now_ns=known["now_ns"], drawn_pj=known["drawn_pj"])
            board.limit_mw = known["limit_mw"]
            self.boards[uuid] = board
            for lease in leases:
                if uuid in lease.devices:
                    used_s = known["used_s"].get(lease.lease_id)
                    since_s = self._cpu_seconds(lease.pid) or 0.0 if used_s is None else used_s
                    self._holders[uuid][lease.lease_id] = (lease, since_s)

    def speed(self, device: str) -> float | None:
        """The board's pace under its present limit."""
        return self._board(device).speed

    def close(self) -> None:
        """Nothing to let go of."""


def _uuid(node: str, index: int) -> str:
    """A UUID in NVML's form that says it is simulated and stays the same for a node's n-th board."""
    digest = hashlib.sha256(f"{node}/{index}".encode()).hexdigest()
    groups = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return f"GPU-sim-{'-'.join(groups)}"
