"""Several meters of one node behind one port: its GPUs, its CPU packages, its DRAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from workers.contract import Device, Lease, Reading
from workers.errors import MeterError
from workers.telemetry.meter import LimitRange, PowerMeter, RemembersMeter


class CompositeMeter:
    """The devices of ``meters``, in their order, indices unchanged. Behaves as ``PowerMeter`` says.

    Raises:
        MeterError: two meters offer the same device: its joules would be counted twice.
    """

    def __init__(self, meters: Sequence[PowerMeter]) -> None:
        self._meters = tuple(meters)
        self._devices = tuple(device for meter in self._meters for device in meter.devices())
        self._owners = {device.uuid: meter for meter in self._meters for device in meter.devices()}
        if len(self._owners) < len(self._devices):
            raise MeterError(
                "two meters of this node offer the same device. Name each source of readings once: "
                f"{', '.join(device.uuid for device in self._devices)}."
            )

    def devices(self) -> tuple[Device, ...]:
        """All of them, meter by meter."""
        return self._devices

    def read(self, device: str) -> Reading:
        """As its meter does."""
        return self._owner(device).read(device)

    def sense(self, device: str) -> Reading:
        """As its meter does."""
        return self._owner(device).sense(device)

    def process_use(self, device: str) -> Mapping[int, int] | None:
        """As its meter does."""
        return self._owner(device).process_use(device)

    def limit_range(self, device: str) -> LimitRange:
        """As its meter does."""
        return self._owner(device).limit_range(device)

    def set_limit(self, device: str, limit_mw: int) -> None:
        """As its meter does."""
        self._owner(device).set_limit(device, limit_mw)

    def attach(self, lease: Lease) -> None:
        """Each meter is told of its own devices in the lease."""
        for meter in self._meters:
            meter.attach(_part(lease, meter))

    def detach(self, lease: Lease) -> None:
        """Each meter is told of its own devices in the lease."""
        for meter in self._meters:
            meter.detach(_part(lease, meter))

    def memory(self) -> Mapping[str, Any]:
        """What those that remember do, all together: their devices differ."""
        return {
            key: value
            for meter in self._meters
            if isinstance(meter, RemembersMeter)
            for key, value in meter.memory().items()
        }

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:
        """Each takes what it knows."""
        for meter in self._meters:
            if isinstance(meter, RemembersMeter):
                meter.recall(memory, [_part(lease, meter) for lease in leases])

    def speed(self, device: str) -> float | None:
        """As its meter does."""
        return self._owner(device).speed(device)

    def close(self) -> None:
        """Close them all."""
        for meter in self._meters:
            meter.close()

    def _owner(self, device: str) -> PowerMeter:
        if device not in self._owners:
            raise MeterError(f"{device} is not a device of this node: {', '.join(self._owners)}.")
        return self._owners[device]


def _part(lease: Lease, meter: PowerMeter) -> Lease:
    """The lease with the devices of ``meter`` alone."""
    own = {device.uuid for device in meter.devices()}
    return replace(lease, devices=tuple(device for device in lease.devices if device in own))
