"""A CPU that cannot be measured, by a model: idle power, and the rest of its rated power in proportion to utilisation.

    power = idle + (TDP - idle) x utilisation

The TDP is the maker's (``cpu_tdp.csv``: exact model names, no families); a CPU that is not in the table has no device
rather than a guessed one. Utilisation is the host's, from ``/proc/stat``, and stands for each of its packages. In a
virtual machine, which has some threads of a CPU, the TDP is taken in proportion to those threads: an assumption, since
nobody tells what the other threads do. Everything made here has the method ``modelled``.

DRAM is not modelled: published figures per GB differ several-fold and do not know the load, so it would be a constant
that looks like a measurement. Where RAPL does not count it, it is null with that reason, or what the
manifest assumes (``accounting.dram_watts``).
"""

from __future__ import annotations

import csv
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.contract import Device, Lease, Method, Reading
from workers.errors import UnmeteredError
from workers.telemetry.meter import HOST_GAP_MS, UncappedMeter
from workers.telemetry.procfs import ROOT as PROC
from workers.telemetry.procfs import CpuInfo, HostTicks, cpu_info, host_ticks
from workers.units import MW_PER_W, PJ_PER_MJ

IDLE_PERCENT = 24
"""Idle power in percent of full power: an assumption, not a fact about your CPU.

It is the mean over seven microarchitectures (Intel Haswell 32, Broadwell 20, Skylake 16, Cascade Lake 17; AMD EPYC 1st
generation 32, 2nd 29, 3rd 24) of idle over full power of whole servers in SPECpower_ssj 2008, as Cloud Carbon
Footprint's coefficients (2022) average them. A desktop CPU idles lower.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedCpu:
    """A row of the table: the maker's thermal design power of one package, and its hardware threads.

    ``tdp_w`` is the base or default TDP; under turbo a package may draw more for a while.
    """

    model: str
    tdp_w: int
    threads: int
    source: str


@dataclass(kw_only=True, slots=True)
class _Package:
    """One package's energy so far, and the look it reaches up to."""

    device: Device
    rated_mw: int
    since_ns: int
    ticks: HostTicks
    energy_pj: int = 0
    power_mw: int | None = None
    utilization: float | None = field(default=None)


class ModelledCpuMeter(UncappedMeter):
    """The CPU packages of this host, modelled. Behaves as ``PowerMeter`` says.

    Args:
        node: goes into the devices' names.
        proc: where the CPU's name and utilisation are read.
        clock_ns: ns since the epoch; a step back adds no energy.

    Raises:
        UnmeteredError: the CPU is not in the table, or there is no procfs.
    """

    def __init__(self, *, node: str, proc: Path = PROC, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._proc, self._clock_ns = proc, clock_ns
        info = cpu_info(proc)
        rated_mw, ticks, now_ns = package_mw(info), host_ticks(proc), clock_ns()
        # What a virtual machine calls packages is its own division of the threads it was lent.
        numbers = (0,) if info.virtual else info.packages
        devices = [
            Device(
                uuid=f"cpu-package-{number}@{node}",
                index=index,
                model=info.model or "unknown",
                kind="cpu",
                method=Method.MODELLED,
                gap_ms=HOST_GAP_MS,
            )
            for index, number in enumerate(numbers)
        ]
        self._packages = {
            device.uuid: _Package(device=device, rated_mw=rated_mw, since_ns=now_ns, ticks=ticks) for device in devices
        }

    def devices(self) -> tuple[Device, ...]:
        """The packages, by number."""
        return tuple(package.device for package in self._packages.values())

    def read(self, device: str) -> Reading:
        """What the package drew by the model up to the last tick of the kernel's clock; power is the mean since."""
        package = self._package(device)
        now_ns, ticks = self._clock_ns(), host_ticks(self._proc)
        passed, busy = ticks.total - package.ticks.total, ticks.busy - package.ticks.busy
        if passed > 0 and now_ns > package.since_ns:
            busy = min(max(busy, 0), passed)
            package.power_mw = model_mw(package.rated_mw, busy=busy, total=passed)
            package.utilization = busy / passed
            package.energy_pj += package.power_mw * (now_ns - package.since_ns)
        if passed != 0 or now_ns < package.since_ns:
            # Ticks that fell (the host was hot-plugged) and a clock that was set back begin a new look.
            package.since_ns, package.ticks = now_ns, ticks
        return Reading(
            device=device,
            time_ns=now_ns,
            energy_mj=package.energy_pj // PJ_PER_MJ,
            power_mw=package.power_mw,
            utilization=package.utilization,
        )

    def memory(self) -> Mapping[str, Any]:
        """Of each package its energy so far, and the look it reaches up to."""
        return {
            uuid: {
                "since_ns": package.since_ns,
                "busy": package.ticks.busy,
                "total": package.ticks.total,
                "energy_pj": package.energy_pj,
            }
            for uuid, package in self._packages.items()
        }

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:  # noqa: ARG002 - it sees the whole host
        """The kernel counted on meanwhile, so the next look covers that time too."""
        for uuid in self._packages.keys() & memory.keys():
            package, known = self._packages[uuid], memory[uuid]
            package.since_ns, package.energy_pj = known["since_ns"], known["energy_pj"]
            package.ticks = HostTicks(busy=known["busy"], total=known["total"])

    def _package(self, device: str) -> _Package:
        if device not in self._packages:
            raise self.unknown(device)
        return self._packages[device]


def model_mw(rated_mw: int, *, busy: int, total: int) -> int:
    """Power of a package of ``rated_mw`` that was busy for ``busy`` of ``total`` ticks, mW."""
    return rated_mw * (IDLE_PERCENT * total + (100 - IDLE_PERCENT) * busy) // (100 * total)


def package_mw(info: CpuInfo) -> int:
    """Rated power of one package of this host, or of the part of one that a virtual machine has, mW.

    Raises:
        UnmeteredError: the CPU is not in the table.
    """
    rated = rated_cpus().get(table_name(info.model or ""))
    if rated is None:
        named = f"the CPU {info.model!r} is not in the table of rated powers" if info.model else "the CPU has no name"
        raise UnmeteredError(named, "Give accounting.cpu_watts in the manifest, and its energy is modelled from that.")
    whole_mw = rated.tdp_w * MW_PER_W
    return whole_mw * min(info.threads, rated.threads) // rated.threads if info.virtual else whole_mw


def table_name(model: str) -> str:
    """A CPU's name as the table has it: ``Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz`` is ``intel xeon gold 6148``."""
    bare = re.sub(r"\((?:R|TM)\)", " ", model, flags=re.IGNORECASE)
    bare = re.sub(r"@.*|\bwith Radeon Graphics\b|\b(?:\d+-Cores?|CPU|Processor)\b", " ", bare)
    bare = re.sub(r"^\d+th Gen\s", "", bare.strip())
    return " ".join(bare.split()).casefold()


@functools.cache
def rated_cpus() -> Mapping[str, RatedCpu]:
    """The table, by ``table_name``."""
    with (Path(__file__).parent / "cpu_tdp.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            RatedCpu(model=row["model"], tdp_w=int(row["tdp_w"]), threads=int(row["threads"]), source=row["source"])
            for row in csv.DictReader(file)
        ]
    return {table_name(row.model): row for row in rows}
