"""An NVML meter in a process of its own, as a meter here: real ``pynvml`` over the simulated driver's real library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tests.driver.probe import Probe, ProbeError
from workers.contract import Device, Lease, Method, Quality, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.meter import LimitRange

ERRORS = {error.__name__: error for error in (CapError, MeterError)}


class RemoteMeter:
    """Passes every call of ``PowerMeter`` on to the meter of a probe, and its errors back."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._devices = tuple(
            Device(
                **{
                    **told,
                    "method": Method(told["method"]),
                    "quality": frozenset(Quality(each) for each in told["quality"]),
                }
            )
            for told in probe.ask("open")
        )

    def devices(self) -> tuple[Device, ...]:
        assert self._call("count") == len(self._devices)
        return self._devices

    def read(self, device: str) -> Reading:
        return Reading(**self._call("read", device))

    def sense(self, device: str) -> Reading:
        return Reading(**self._call("sense", device))

    def process_use(self, device: str) -> Mapping[int, int] | None:
        told = self._call("process_use", device)
        return None if told is None else {int(pid): busy_ns for pid, busy_ns in told.items()}

    def limit_range(self, device: str) -> LimitRange:
        return LimitRange(**self._call("limit_range", device))

    def set_limit(self, device: str, limit_mw: int) -> None:
        self._call("set_limit", device, limit_mw)

    def attach(self, lease: Lease) -> None:
        self._call("attach", asdict(lease))

    def detach(self, lease: Lease) -> None:
        self._call("detach", asdict(lease))

    def speed(self, device: str) -> float | None:
        told: float | None = self._call("speed", device)
        return told

    def close(self) -> None:
        self._call("close")

    def _call(self, function: str, *arguments: object) -> Any:
        try:
            return self._probe.ask("call", function, *arguments)
        except ProbeError as error:
            name, _, message = str(error).partition(": ")
            raise ERRORS[name](message) from error
