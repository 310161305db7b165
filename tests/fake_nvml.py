"""A stand-in for the module ``pynvml`` whose boards behave: they count, take limits, refuse, and fall off the bus.

Pass a ``FakeNvml`` as ``NvmlMeter(nvml=...)``; the real library is never touched. Names, errors and constants are the
real ones, so that code which works here spells them as the real module does. Not modelled: MIG.
"""
# ruff: noqa: N802 - the functions' names are NVML's

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

U32_NOT_AVAILABLE = 2**32 - 1
U64_NOT_AVAILABLE = 2**64 - 1


@dataclass
class Board:
    """One board. ``energy_mj``, ``instant_mw`` or limits that are ``None`` are not supported by it.

    Attributes:
        average_mw: what ``nvmlDeviceGetPowerUsage`` says; ``None``: not supported.
        enforced_mw: the limit in force now; ``None``: the one that was set.
        processes: samples of who kept it busy, as (pid, µs since the epoch, %); ``None``: it takes none.
        used_gib: memory in use, of 80 GiB; ``reasons``: what holds its clocks back, as NVML's bits.
        lost: the board has fallen off the bus.
        errors: function name to the error code it answers with.
    """

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-11111111-2222-3333-4444-555555555555"
    energy_mj: int | None = 1_000_000
    instant_mw: int | None = 300_000
    average_mw: int | None = 250_000
    busy_percent: int | None = 75
    architecture: int = pynvml.NVML_DEVICE_ARCH_HOPPER
    range_mw: tuple[int, int] | None = (200_000, 700_000)
    default_mw: int = 700_000
    limit_mw: int = 650_000
    enforced_mw: int | None = None
    processes: list[tuple[int, int, int]] | None = field(default_factory=list)
    used_gib: int | None = 2
    temperature_c: int | None = 41
    sm_clock_mhz: int | None = 1980
    reasons: int | None = 0
    lost: bool = False
    errors: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """The part of ``pynvml`` that the meter uses, over ``boards``; ``root`` may set limits."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *boards: Board, root: bool = True, driver: bool = True, as_bytes: bool = False) -> None:
        self.boards, self._root, self._driver, self._as_bytes = boards, root, driver, as_bytes
        self.running = False

    def __getattr__(self, name: str) -> Any:
        """Constants are the real module's."""
        if not name.startswith("NVML_"):
            raise AttributeError(name)
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        if not self._driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self.running = True

    def nvmlShutdown(self) -> None:
        if not self.running:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        self.running = False

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        return self._asked(self.boards[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:
        for board in self.boards:
            if board.uuid == uuid:
                return self._asked(board, "nvmlDeviceGetHandleByUUID")
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetArchitecture(self, board: Board) -> int:
        return self._asked(board, "nvmlDeviceGetArchitecture").architecture

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:
        self._asked(board, "nvmlDeviceGetMigMode")
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetC2cModeInfoV(self, board: Board) -> Any:
        self._asked(board, "nvmlDeviceGetC2cModeInfoV")
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetUUID(self, board: Board) -> str | bytes:
        return self._text(self._asked(board, "nvmlDeviceGetUUID").uuid)

    def nvmlDeviceGetName(self, board: Board) -> str | bytes:
        return self._text(self._asked(board, "nvmlDeviceGetName").name)

    def nvmlDeviceGetTotalEnergyConsumption(self, board: Board) -> int:
        return _supported(self._asked(board, "nvmlDeviceGetTotalEnergyConsumption").energy_mj)

    def nvmlDeviceGetPowerUsage(self, board: Board) -> int:
        return _supported(self._asked(board, "nvmlDeviceGetPowerUsage").average_mw)

    def nvmlDeviceGetFieldValues(self, board: Board, fields: Sequence[tuple[int, int]]) -> list[SimpleNamespace]:
        self._asked(board, "nvmlDeviceGetFieldValues")
        known = {pynvml.NVML_FI_DEV_POWER_INSTANT: board.instant_mw}
        return [
            SimpleNamespace(
                nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED if known.get(name) is None else pynvml.NVML_SUCCESS,
                value=SimpleNamespace(uiVal=known.get(name) or 0),
            )
            for name, _ in fields
        ]

    def nvmlDeviceGetUtilizationRates(self, board: Board) -> SimpleNamespace:
        return SimpleNamespace(gpu=_supported(self._asked(board, "nvmlDeviceGetUtilizationRates").busy_percent))

    def nvmlDeviceGetProcessUtilization(self, board: Board, since_us: int) -> list[SimpleNamespace]:
        """All samples later than ``since_us``, of those processes that were busy."""
        kept = _supported(self._asked(board, "nvmlDeviceGetProcessUtilization").processes)
        later = [SimpleNamespace(pid=pid, timeStamp=at_us, smUtil=sm) for pid, at_us, sm in kept if at_us > since_us]
        if not later:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return later

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> SimpleNamespace:
        used = _supported(self._asked(board, "nvmlDeviceGetMemoryInfo").used_gib)
        return SimpleNamespace(used=used << 30, total=80 << 30)

    def nvmlDeviceGetTemperature(self, board: Board, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return _supported(self._asked(board, "nvmlDeviceGetTemperature").temperature_c)

    def nvmlDeviceGetClockInfo(self, board: Board, clock: int) -> int:
        assert clock == pynvml.NVML_CLOCK_SM
        return _supported(self._asked(board, "nvmlDeviceGetClockInfo").sm_clock_mhz)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, board: Board) -> int:
        return _supported(self._asked(board, "nvmlDeviceGetCurrentClocksThrottleReasons").reasons)

    def nvmlDeviceGetEnforcedPowerLimit(self, board: Board) -> int:
        self._asked(board, "nvmlDeviceGetEnforcedPowerLimit")
        return board.limit_mw if board.enforced_mw is None else board.enforced_mw

    def nvmlDeviceGetPowerManagementLimit(self, board: Board) -> int:
        self._asked(board, "nvmlDeviceGetPowerManagementLimit")
        return _supported(board.range_mw) and board.limit_mw

    def nvmlDeviceGetPowerManagementDefaultLimit(self, board: Board) -> int:
        self._asked(board, "nvmlDeviceGetPowerManagementDefaultLimit")
        return _supported(board.range_mw) and board.default_mw

    def nvmlDeviceGetPowerManagementLimitConstraints(self, board: Board) -> list[int]:
        return list(_supported(self._asked(board, "nvmlDeviceGetPowerManagementLimitConstraints").range_mw))

    def nvmlDeviceSetPowerManagementLimit(self, board: Board, limit_mw: int) -> None:
        low, high = _supported(self._asked(board, "nvmlDeviceSetPowerManagementLimit").range_mw)
        if not self._root:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        if not low <= limit_mw <= high:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        board.limit_mw = limit_mw

    def _asked(self, board: Board, function: str) -> Board:
        """The board, if it answers ``function``."""
        if not self.running:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if board.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if function in board.errors:
            raise pynvml.NVMLError(board.errors[function])
        return board

    def _text(self, text: str) -> str | bytes:
        """Old versions of the module answer with bytes."""
        return text.encode() if self._as_bytes else text


def _supported(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value
