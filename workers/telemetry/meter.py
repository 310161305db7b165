"""The meter's port: what every source of power readings offers, be it a driver, a simulation or a recording."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workers.contract import Device, Lease, Reading
from workers.errors import CapError, MeterError, UnknownNameError

HOST_GAP_MS = 60_000
"""How far apart readings of the host's own devices may be: what they count or model is exact whenever it is read, and a
look a minute loses nothing but resolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitRange:
    """The power limits a board takes, mW: the lowest, the highest, the one it starts with, and the one it has now.

    ``set_mw`` is what was *set*; what the board enforces at the moment (``Reading.limit_mw``) may be lower.
    """

    min_mw: int
    max_mw: int
    default_mw: int
    set_mw: int


class PowerMeter(Protocol):
    """Reads and caps the devices of one node.

    Calls are short and block; an agent makes them from one thread at a time. Devices are named by UUID. A device that
    cannot be read raises ``MeterError``; a figure the device does not offer is ``None`` in its reading.
    """

    def devices(self) -> tuple[Device, ...]:
        """The devices, in the order of their index; the same tuple at every call."""
        ...

    def read(self, device: str) -> Reading:
        """One look at ``device``, now.

        Raises:
            MeterError: it cannot be read; other devices may still be fine.
        """
        ...

    def sense(self, device: str) -> Reading:
        """The same without a look at the counter, where a look is dear (``count_every_ms``): no ``energy_mj``.

        Raises:
            MeterError: it cannot be read.
        """
        ...

    def process_use(self, device: str) -> Mapping[int, int] | None:
        """How long each process kept ``device`` busy since the last call for it, by pid; the first call only begins.

        In nanoseconds of the whole device: a process that took a quarter of it for a second used 250,000,000. Asked
        for only where several leases hold one device, right after a reading of it, to share that by.

        Returns:
            Empty when nobody used it; ``None`` where use is not known by process.

        Raises:
            MeterError: it cannot be read.
        """
        ...

    def limit_range(self, device: str) -> LimitRange:
        """What power limits ``device`` takes, and has.

        Raises:
            CapError: it has no settable limit.
            MeterError: it cannot be read.
        """
        ...

    def set_limit(self, device: str, limit_mw: int) -> None:
        """Set the power limit of ``device``; setting the limit it has is harmless.

        Raises:
            CapError: out of range, or this process may not.
        """
        ...

    def attach(self, lease: Lease) -> None:
        """A process begins to use the lease's devices: a simulated device follows it, a real one knows already."""
        ...

    def detach(self, lease: Lease) -> None:
        """The opposite of ``attach``; unknown leases are ignored."""
        ...

    def speed(self, device: str) -> float | None:
        """How fast work goes on a simulated device, as a share of this host's pace; ``None`` on a real one."""
        ...

    def close(self) -> None:
        """Let go of the driver. Nothing else may be called afterwards."""
        ...


@runtime_checkable
class RemembersMeter(Protocol):
    """A meter whose counters live in this process, and would start anew with the next one, unless they are told."""

    def memory(self) -> Mapping[str, Any]:
        """Where its counters stand, and what they stand on, as JSON."""
        ...

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:
        """Go on from ``memory``, of a meter of the same devices on this host since its last boot; call before reading.

        ``leases`` are those still held: what their processes did meanwhile counts. Devices it does not know are left
        out.
        """
        ...


@runtime_checkable
class PartialMeter(Protocol):
    """A meter that opens although some of its devices do not answer.

    Attributes:
        silent: what an operator calls each of those, to why it is left out: a clause.
    """

    silent: Mapping[str, str]


class UncappedMeter(ABC):
    """What is the same in all meters of devices that take no limit and follow nobody: a CPU's counters, a recording."""

    @abstractmethod
    def devices(self) -> tuple[Device, ...]:
        """As the port says."""

    @abstractmethod
    def read(self, device: str) -> Reading:
        """As the port says."""

    def sense(self, device: str) -> Reading:
        """A whole look: it costs nothing here."""
        return self.read(device)

    def process_use(self, device: str) -> Mapping[int, int] | None:
        """Not known: a host's devices are shared out by processor time (``HostUsage``), a recording by nobody's."""
        if all(known.uuid != device for known in self.devices()):
            raise self.unknown(device)
        return None

    def limit_range(self, device: str) -> LimitRange:
        """There is none."""
        if all(known.uuid != device for known in self.devices()):
            raise self.unknown(device)
        raise CapError(f"{device} has no power limit that a job may set. Cap its GPUs instead.")

    def set_limit(self, device: str, limit_mw: int) -> None:  # noqa: ARG002 - the port's signature
        """Never."""
        self.limit_range(device)

    def attach(self, lease: Lease) -> None:  # noqa: B027 - nothing is what these meters do
        """They see whoever works."""

    def detach(self, lease: Lease) -> None:  # noqa: B027
        """They see whoever works."""

    def speed(self, device: str) -> float | None:  # noqa: ARG002 - the port's signature
        """Real devices set their own pace."""
        return None

    def close(self) -> None:  # noqa: B027
        """Nothing is held open."""

    def unknown(self, device: str) -> MeterError:
        """The error for a device that this meter does not have."""
        return MeterError(f"{device} is not a device of this node: {', '.join(d.uuid for d in self.devices())}.")


def find_device(devices: Sequence[Device], token: str) -> Device:
    """The GPU a launcher means: by UUID, else by index, as ``CUDA_VISIBLE_DEVICES`` has either.

    Never the host's CPU or DRAM: they are metered too, but nobody can hold them.

    Raises:
        UnknownNameError: lists the GPUs there are.
    """
    gpus = [device for device in devices if device.kind == "gpu"]
    for device in gpus:
        if token in (device.uuid, str(device.index)):
            return device
    raise UnknownNameError("device", token, [f"{device.index} ({device.uuid})" for device in gpus] or ["no GPU at all"])
