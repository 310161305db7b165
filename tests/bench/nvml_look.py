"""A real board's own figures, asked of NVML without any of our meter's code: the second opinion of ``bench_gpu``."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pynvml

PAUSE_S = 0.0005
PATIENCE_S = 1.0
"""No counter has been seen to stand still for so long."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the board's counter showed, in mJ, at ``time_ns``, ns since the epoch."""

    time_ns: int
    energy_mj: int


@dataclass(kw_only=True)
class Watch:
    """What was seen of a board while somebody worked on it.

    Attributes:
        memory_bytes: the most that was in use, by anybody; ``clocks_mhz``: of its multiprocessors, look by look.
        powers_mw: its sensor's latest samples; ``throttle``: every reason that held its clocks back, as NVML's bits.
        pids: processes that the driver had a context of.
    """

    memory_bytes: int = 0
    clocks_mhz: list[int] = field(default_factory=list)
    powers_mw: list[int] = field(default_factory=list)
    throttle: int = 0
    pids: set[int] = field(default_factory=set)

    def told(self) -> dict[str, object]:
        """As JSON has it; null where nothing was seen."""
        return {
            "looks": len(self.clocks_mhz),
            "memory_peak_gib": round(self.memory_bytes / 2**30, 2),
            "sm_clock_mhz_median": statistics.median(self.clocks_mhz) if self.clocks_mhz else None,
            "sm_clock_mhz_least": min(self.clocks_mhz, default=None),
            "power_w_most": max(self.powers_mw, default=0) / 1000 or None,
            "throttle_bits": hex(self.throttle),
            "processes": len(self.pids),
        }


class Board:
    """The first board."""

    def __init__(self, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self.uuid = str(nvml.nvmlDeviceGetUUID(self._handle))

    def facts(self) -> dict[str, object]:
        """Which board, driver and settings; null for what it does not tell."""
        return {
            "name": self._asked(lambda: self._nvml.nvmlDeviceGetName(self._handle)),
            "driver": self._nvml.nvmlSystemGetDriverVersion(),
            "power_limit_w": self._watts("nvmlDeviceGetEnforcedPowerLimit"),
            "power_limit_default_w": self._watts("nvmlDeviceGetPowerManagementDefaultLimit"),
            "persistence_mode": self._asked(lambda: self._nvml.nvmlDeviceGetPersistenceMode(self._handle)),
            "ecc": self._asked(lambda: self._nvml.nvmlDeviceGetEccMode(self._handle)[0]),
            "memory_gib": round(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total / 2**30, 1),
            "sm_clock_mhz_most": self._asked(
                lambda: self._nvml.nvmlDeviceGetMaxClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)
            ),
        }

    def at_edge(self) -> Look:
        """The counter just when it has moved: a look between two moves would be as old as the last of them."""
        first, began_s = self._counted(), time.monotonic()
        while (now := self._counted()).energy_mj == first.energy_mj and time.monotonic() - began_s < PATIENCE_S:
            time.sleep(PAUSE_S)
        return now

    def look_cpu_ms(self, looks: int = 50) -> float:
        """Processor time that one look at the counter takes of this thread, ms: the driver may wait for the board."""
        began_ns = time.thread_time_ns()
        for _ in range(looks):
            self._counted()
        return (time.thread_time_ns() - began_ns) / looks / 1e6

    @contextlib.contextmanager
    def watched(self, every_s: float = 0.1) -> Iterator[Watch]:
        """Looked at again and again while the block runs, and once before."""
        watch, is_over = Watch(), threading.Event()
        self._add(watch)

        def look() -> None:
            while not is_over.wait(every_s):
                self._add(watch)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            is_over.set()
            thread.join()

    def _add(self, watch: Watch) -> None:
        nvml, handle = self._nvml, self._handle
        watch.memory_bytes = max(watch.memory_bytes, int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        watch.clocks_mhz.append(int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)))
        watch.throttle |= int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        watch.pids |= {int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        told = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if told.nvmlReturn == nvml.NVML_SUCCESS:
            watch.powers_mw.append(int(told.value.uiVal))

    def _counted(self) -> Look:
        asked_ns = time.time_ns()
        counted = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return Look(time_ns=(asked_ns + time.time_ns()) // 2, energy_mj=counted)

    def _watts(self, function: str) -> float | None:
        told = self._asked(lambda: getattr(self._nvml, function)(self._handle))
        return None if told is None else told / 1000

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except self._nvml.NVMLError:
            return None
