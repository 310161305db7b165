"""The peers and the bare loops, one per process: ``python peers.py KIND PERIOD_S``.

Runs where the peers are installed and nothing of ours is, so it imports nothing of ours. See ``serve`` for the pipe.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

JOULES_PER_KWH = 3_600_000


class Peer(Protocol):
    """A meter of one board, the first of ``CUDA_VISIBLE_DEVICES``, or of all when it runs for its cost."""

    def begin(self) -> None: ...

    def end(self) -> float:
        """Joules since ``begin``."""
        ...


class Bare:
    """Power times time, asked for once a period: what people write themselves. It ends at the first failure."""

    def __init__(self, period_s: float, boards: list[int] | None = None) -> None:
        import pynvml

        self._nvml, self._period_s = pynvml, period_s
        pynvml.nvmlInit()
        chosen = range(pynvml.nvmlDeviceGetCount()) if boards is None else boards
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in chosen]
        self._stop = threading.Event()

    def begin(self) -> None:
        self._joules, self._error = 0.0, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _look(self) -> float:
        """Watts of the first board."""
        watts = [self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000 for handle in self._handles]
        return float(watts[0])

    def _run(self) -> None:
        try:
            before_s, watts = time.monotonic(), self._look()
            while not self._stop.wait(self._period_s):
                before_s, watts = self._add(before_s, watts), self._look()
            self._add(before_s, watts)
        except self._nvml.NVMLError as error:
            self._error = error

    def _add(self, before_s: float, watts: float) -> float:
        now_s = time.monotonic()
        self._joules += watts * (now_s - before_s)
        return now_s

    def end(self) -> float:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._joules


class Same(Bare):
    """The very calls of our agent's readings, as often, in a loop, and nothing else."""

    _asked_s = 0.0

    def _look(self) -> float:
        nvml, now_s = self._nvml, time.monotonic()
        is_due = now_s - self._asked_s >= 1
        self._asked_s = now_s if is_due else self._asked_s
        for handle in self._handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_INSTANT, 0)])
            if is_due:
                nvml.nvmlDeviceGetUtilizationRates(handle)
                nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
        return 0.0


class Zeus:
    """A ``ZeusMonitor``; it measures windows, with a thread of its own only for boards without a counter."""

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(cpu_indices=[])

    def begin(self) -> None:
        self._monitor.begin_window("w", sync_execution=False)

    def end(self) -> float:
        return float(
            self._monitor.end_window("w", sync_execution=False).gpu_energy[0]
        )  # it counts the visible boards only


class ZeusLoop(Zeus):
    """One window after the other, one per period: how a training loop measures its steps."""

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            super().begin()
            time.sleep(self._period_s)
            super().end()

    def end(self) -> float:
        return 0.0


class CodeCarbon:
    """Offline, of the machine, nothing written; its figure for GPUs alone."""

    def __init__(self, period_s: float, boards: list[int] | None) -> None:
        from codecarbon import OfflineEmissionsTracker

        chosen: dict[str, Any] = {} if boards is None else {"gpu_ids": boards}
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",
            measure_power_secs=period_s,
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
            **chosen,
        )

    def begin(self) -> None:
        self._tracker.start()

    def end(self) -> float:
        self._tracker.stop()
        return float(self._tracker.final_emissions_data.gpu_energy) * JOULES_PER_KWH


class CarbonTracker:
    """GPUs alone, one epoch, nothing predicted; the factor for the data centre is taken out of its figure."""

    def __init__(self, period_s: float) -> None:
        from carbontracker import constants
        from carbontracker.tracker import CarbonTracker as Tracker

        self._pue = constants.PUE_2023
        self._tracker = Tracker(
            epochs=2, epochs_before_pred=0, update_interval=period_s, components="gpu", verbose=0, ignore_errors=False
        )

    def begin(self) -> None:
        self._tracker.epoch_start()

    def end(self) -> float:
        self._tracker.tracker.epoch_end()
        return float(self._tracker.tracker.total_energy_per_epoch().sum()) / self._pue * JOULES_PER_KWH


def make(kind: str, period_s: float) -> Peer:
    """The peer of that name; ``-all`` meters all boards, without end, to see what it costs."""
    board = [int(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0])]
    return {
        "bare": lambda: Bare(period_s, board),
        "bare-all": lambda: Bare(period_s),
        "same-all": lambda: Same(period_s),
        "zeus": Zeus,
        "zeus-all": lambda: ZeusLoop(period_s),
        "codecarbon": lambda: CodeCarbon(period_s, board),
        "codecarbon-all": lambda: CodeCarbon(period_s, None),
        "carbontracker": lambda: CarbonTracker(period_s),
        "carbontracker-all": lambda: CarbonTracker(period_s),
    }[kind]()


def attempt(act: Any) -> dict[str, Any]:
    """What ``act`` gives, or its error in a word: whatever a peer raises is its result."""
    try:
        return {"joules": act()}
    except BaseException as error:  # noqa: BLE001 - a peer may raise anything, SystemExit included
        return {"error": type(error).__name__}


def serve(made: Callable[[], Peer]) -> None:
    """Lines ``begin NS`` and ``end NS``: at that time of the epoch, do so. Replies are JSON lines.

    ``at_ns`` is when begin returned and when end was called: between them a job would have worked. What a peer prints
    goes to standard error, whatever it takes for its standard output.
    """
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        meter = made()
        print(json.dumps({"ready": True}), file=replies, flush=True)
        for line in sys.stdin:
            what, at_ns = line.split()
            time.sleep(max(0.0, (int(at_ns) - time.time_ns()) / 1e9))
            called_ns = time.time_ns()
            told = attempt(meter.begin if what == "begin" else meter.end)
            told["at_ns"] = time.time_ns() if what == "begin" else called_ns
            print(json.dumps(told), file=replies, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(lambda: make(sys.argv[1], float(sys.argv[2])))
