"""What of a host's CPU and DRAM energy can be metered here, by which method, and why not the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.errors import InputError, UnmeteredError
from workers.telemetry import procfs, rapl
from workers.telemetry.meter import PowerMeter
from workers.telemetry.modelled import ModelledCpuMeter
from workers.telemetry.rapl import RaplMeter
from workers.telemetry.usage import HostUsage

WISHES = ("auto", "rapl", "modelled", "none")
GIVE_DRAM_WATTS = "give accounting.dram_watts in the manifest, and its energy is modelled from that."
NO_DRAM_ZONE = UnmeteredError(
    "the CPU has no RAPL counter of its DRAM", f"Server CPUs have one, most others have not: {GIVE_DRAM_WATTS}"
)
DRAM_NOT_MODELLED = "DRAM is not modelled: a constant per GB would be no measurement"
NOT_WISHED = UnmeteredError("the node's agent runs with --cpu none", "Start it with --cpu auto.")


@dataclass(frozen=True, kw_only=True)
class HostMeters:
    """The meters of a host's own devices.

    Attributes:
        meters: none, or the one that reads the CPU (and DRAM).
        usage: who uses the host; ``None`` when nothing is metered.
        missing: why a kind (``cpu``, ``dram``) is not metered, and what would mend it.
        fallback: why the CPU is modelled and not measured; ``None`` when it is not, or was asked for.
    """

    meters: tuple[PowerMeter, ...] = ()
    usage: HostUsage | None = None
    missing: Mapping[str, UnmeteredError] = field(default_factory=dict)
    fallback: UnmeteredError | None = None

    @property
    def reasons(self) -> dict[str, str]:
        """Per kind that is not metered, why: a clause for a table."""
        return {kind: error.reason for kind, error in self.missing.items()}


def open_host_meters(
    wish: str,
    *,
    node: str,
    powercap: Path = rapl.ROOT,
    proc: Path = procfs.ROOT,
    clock_ns: Callable[[], int] = time.time_ns,
) -> HostMeters:
    """The meters a wish names. ``auto`` is RAPL where it can be read, else the model where the CPU is known, else none.

    Args:
        wish: one of ``WISHES``.
        node: goes into the devices' names.
        powercap: the powercap class in sysfs.
        proc: procfs.
        clock_ns: time of the readings, ns since the epoch.

    Raises:
        UnmeteredError: ``rapl`` or ``modelled`` was asked for, and cannot be had.
        InputError: no such wish.
    """

    def counted() -> HostMeters:
        meter = RaplMeter(node=node, root=powercap, proc=proc, clock_ns=clock_ns)
        has_dram = any(device.kind == "dram" for device in meter.devices())
        return HostMeters(meters=(meter,), usage=HostUsage(proc), missing={} if has_dram else {"dram": NO_DRAM_ZONE})

    def modelled(fallback: UnmeteredError | None = None) -> HostMeters:
        meter = ModelledCpuMeter(node=node, proc=proc, clock_ns=clock_ns)
        remedy = fallback.remedy if fallback else "Have it counted with --cpu rapl."
        missing = {"dram": _or_watts(UnmeteredError(DRAM_NOT_MODELLED, remedy))}
        return HostMeters(meters=(meter,), usage=HostUsage(proc), missing=missing, fallback=fallback)

    if wish == "none":
        return HostMeters(missing={"cpu": NOT_WISHED, "dram": NOT_WISHED})
    if wish == "rapl":
        return counted()
    if wish == "modelled":
        return modelled()
    if wish == "auto":
        return _best(counted, modelled)
    raise InputError(f"unknown way to meter the CPU {wish!r}. Known: {', '.join(WISHES)}.")


def _best(counted: Callable[[], HostMeters], modelled: Callable[[UnmeteredError], HostMeters]) -> HostMeters:
    """The counter, else the model, else neither, with both reasons."""
    try:
        return counted()
    except UnmeteredError as error:
        unreadable = error
    try:
        return modelled(unreadable)
    except UnmeteredError as unknown:
        both = UnmeteredError(
            f"{unreadable.reason}, and {unknown.reason}",
            f"{unreadable.remedy} Or {unknown.remedy[0].lower()}{unknown.remedy[1:]}",
        )
        return HostMeters(missing={"cpu": both, "dram": _or_watts(unreadable)})


def _or_watts(unmetered: UnmeteredError) -> UnmeteredError:
    """Why DRAM is not metered, with what the user can do about it."""
    return UnmeteredError(unmetered.reason, f"{unmetered.remedy} Or {GIVE_DRAM_WATTS}")
