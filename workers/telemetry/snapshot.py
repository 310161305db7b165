"""What an agent knows at one instant, as values: what the exporter renders and ``status`` prints."""

from __future__ import annotations

from dataclasses import dataclass, replace

from workers.contract import Device, Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStatus:
    """A device at the last read. The figures are ``None`` when it could not be read or does not tell.

    Attributes:
        up: whether the last read worked; when not, nothing but this and the error count is exported.
        energy_mj: cumulative energy of the device, mJ; ``power_mw``, ``limit_mw``: milliwatts.
        utilization: busy share, 0 to 1.
        read_errors: reads that failed since the agent started.
    """

    device: Device
    up: bool
    energy_mj: int | None
    power_mw: int | None
    limit_mw: int | None
    utilization: float | None
    read_errors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseStatus:
    """A lease and what has been booked to it, mJ, over all its devices; ``open`` is false once it is closed."""

    lease: Lease
    energy_mj: int
    open: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSnapshot:
    """Everything an agent knows now.

    Attributes:
        node: the node's name, as in the energy log.
        read_seconds: how long the last look at all devices took, s.
        write_errors: times the disk refused the energy log since the agent started.
        silent: devices that did not answer when the agent started, as an operator calls them.
    """

    node: str
    devices: tuple[DeviceStatus, ...]
    leases: tuple[LeaseStatus, ...]
    read_seconds: float
    write_errors: int = 0
    silent: tuple[str, ...] = ()


def without_figures(snapshot: NodeSnapshot) -> NodeSnapshot:
    """The node when none of its devices answers."""
    silent = (
        replace(status, up=False, energy_mj=None, power_mw=None, limit_mw=None, utilization=None)
        for status in snapshot.devices
    )
    return replace(snapshot, devices=tuple(silent))
