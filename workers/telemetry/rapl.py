"""CPU packages and DRAM through RAPL: the energy counters a CPU keeps of itself, as Linux shows them in sysfs.

Zones named ``package-N`` are metered as ``cpu``, their ``dram`` subzones as ``dram``; on servers a package's counter
does not include its DRAM. ``core`` and ``uncore`` are parts of their package, and ``intel-rapl-mmio`` shows a package a
second time: both are left out, so that nothing is counted twice. ``psys`` is a whole platform, packages included; it is
metered only where it is alone, as ``cpu-psys@NODE``, and then holds more than the CPU.

A counter is microjoules in ``energy_uj`` and goes back to 0 after ``max_energy_range_uj`` (every 20 minutes at 200 W).
Its increments are added up here in integers, so that what is exposed only grows and no part of a millijoule is lost.
The step from the highest value to 0 is one unit of the hardware (15 or 61 µJ) that sysfs does not tell: that much is
missing per wrap, 0.2 parts in a thousand million. Two looks so far apart that a counter may have wrapped more than once
cannot tell how often: one wrap at most is assumed, and a device's ``gap_ms`` is short enough that the books flag such a
span ``gap``.

RAPL has no power reading; power is its energy over time. Refreshes come about every millisecond.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workers.contract import Device, Lease, Method, Reading
from workers.errors import MeterError, UnmeteredError
from workers.telemetry.meter import HOST_GAP_MS, UncappedMeter
from workers.telemetry.procfs import ROOT as PROC
from workers.telemetry.procfs import cpu_info

ROOT = Path("/sys/class/powercap")
PLATFORM = "cpu-psys@"
"""How the name of a device begins that is a whole platform, not a CPU package."""
PLAUSIBLE_W = 2_000
"""No package, no DRAM and no single-board platform draws more. A counter that fell, and would have to have drawn more
to have wrapped, was reset instead (by a suspend or a hot-plug)."""
_ZONE = re.compile(r"intel-rapl:(?P<package>\d+)(?P<sub>:\d+)?")
"""AMD's packages have the same name: the driver is Intel's."""


@dataclass(kw_only=True, slots=True)
class _Zone:
    """One counter and what is known of it; ``total_uj`` is what it has counted, wraps included."""

    device: Device
    folder: Path
    range_uj: int
    last_uj: int
    total_uj: int
    seen_ns: int


class RaplMeter(UncappedMeter):
    """The RAPL zones of this host. Behaves as ``PowerMeter`` says; a zone that vanishes is an error until it is back.

    Args:
        node: goes into the devices' names.
        root: the powercap class in sysfs.
        proc: where the CPU's name is read.
        clock_ns: time of the readings, ns since the epoch.
        monotonic_ns: time between looks, which tells a wrap from a reset.

    Raises:
        UnmeteredError: there is no zone, or its counters may not be read.
    """

    def __init__(
        self,
        *,
        node: str,
        root: Path = ROOT,
        proc: Path = PROC,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock_ns, self._monotonic_ns = clock_ns, monotonic_ns
        found = _find(root)
        if not found:
            raise UnmeteredError(
                f"there is no RAPL zone in {root}",
                "On bare metal run `sudo modprobe intel_rapl_msr`; virtual machines and containers are shown none.",
            )
        model = cpu_info(proc).model or "unknown"
        counts: dict[str, int] = {}
        self._zones: dict[str, _Zone] = {}
        for name, kind, folder in found:
            index = counts[kind] = counts.get(kind, -1) + 1
            uuid = f"{kind}-{name}@{node}"
            device = Device(uuid=uuid, index=index, model=model, kind=kind, method=Method.COUNTER)
            self._zones[uuid] = self._open(device, folder, root)

    def _open(self, device: Device, folder: Path, root: Path) -> _Zone:
        """The zone of a device, which is told for how long its counter tells a wrap."""
        try:
            first_uj, range_uj = _number(folder / "energy_uj"), _number(folder / "max_energy_range_uj")
        except PermissionError as error:
            raise UnmeteredError("only root may read the RAPL counters (CVE-2020-8694)", permission(root)) from error
        except (OSError, ValueError) as error:
            raise UnmeteredError(
                f"the RAPL zone {folder} cannot be read: {error}", "Check `sudo dmesg | grep -i rapl`."
            ) from error
        return _Zone(
            device=replace(device, gap_ms=min(HOST_GAP_MS, once_around_ms(range_uj))),
            folder=folder,
            range_uj=range_uj,
            last_uj=first_uj,
            total_uj=first_uj,
            seen_ns=self._monotonic_ns(),
        )

    def devices(self) -> tuple[Device, ...]:
        """Packages by number, then their DRAM; the index counts devices of one kind."""
        return tuple(zone.device for zone in self._zones.values())

    def read(self, device: str) -> Reading:
        """The counter, wraps included; it begins at what the hardware showed when this meter was made."""
        zone = self._zone(device)
        try:
            now_uj = _number(zone.folder / "energy_uj")
        except (OSError, ValueError) as error:
            raise MeterError(
                f"{device} cannot be read: {error}. Check that {zone.folder} is there and readable."
            ) from error
        time_ns, seen_ns = self._clock_ns(), self._monotonic_ns()
        grown_uj = growth_uj(zone.last_uj, now_uj, range_uj=zone.range_uj, elapsed_ns=seen_ns - zone.seen_ns)
        # After a reset the bare counter is shown: lower than before, which the books take as what it is.
        zone.total_uj = now_uj if grown_uj is None else zone.total_uj + grown_uj
        zone.last_uj, zone.seen_ns = now_uj, seen_ns
        return Reading(device=device, time_ns=time_ns, energy_mj=zone.total_uj // 1000, power_mw=None)

    def memory(self) -> Mapping[str, Any]:
        """Of each zone its last look, and what it has counted."""
        return {
            uuid: {"last_uj": zone.last_uj, "total_uj": zone.total_uj, "seen_ns": zone.seen_ns}
            for uuid, zone in self._zones.items()
        }

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:  # noqa: ARG002 - it counts whoever works
        """The hardware counted on meanwhile; the monotonic clock is the host's, so that a wrap is told from a reset."""
        for uuid in self._zones.keys() & memory.keys():
            zone, known = self._zones[uuid], memory[uuid]
            zone.last_uj, zone.total_uj, zone.seen_ns = known["last_uj"], known["total_uj"], known["seen_ns"]

    def _zone(self, device: str) -> _Zone:
        if device not in self._zones:
            raise self.unknown(device)
        return self._zones[device]


def growth_uj(before_uj: int, now_uj: int, *, range_uj: int, elapsed_ns: int) -> int | None:
    """Microjoules counted between two looks, through one wrap at most; ``None`` where the counter was reset."""
    if now_uj >= before_uj:
        return now_uj - before_uj
    wrapped_uj = range_uj - before_uj + now_uj
    # W x ns = nJ
    return wrapped_uj if 0 <= wrapped_uj <= PLAUSIBLE_W * elapsed_ns // 1000 else None


def once_around_ms(range_uj: int) -> int:
    """How long a counter takes, at the least, to count through its range: looks closer than this miss no wrap.

    A range of 262 kJ lasts for 131 s at ``PLAUSIBLE_W``, one of 66 kJ for 33 s.
    """
    # µJ / W = µs
    return range_uj // PLAUSIBLE_W // 1000


def permission(root: Path = ROOT) -> str:
    """The commands that let everybody on this host read the counters, now and after a reboot."""
    rule = 'SUBSYSTEM=="powercap", ACTION=="add", KERNEL=="intel-rapl:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
    return (
        f"Run `sudo chmod a+r {root}/intel-rapl:*/energy_uj`, and to keep it after a reboot "
        f"`echo '{rule}' | sudo tee /etc/udev/rules.d/70-rapl.rules`; or run the agent as root."
    )


def _find(root: Path) -> list[tuple[str, Literal["cpu", "dram"], Path]]:
    """Name, kind and folder of the zones to meter, packages first, each kind in the order of its packages.

    A zone whose name cannot be read is none.
    """
    names: dict[str, str] = {}
    for folder in root.glob("intel-rapl:*"):
        if _ZONE.fullmatch(folder.name) and (name := _name(folder)):
            names[folder.name] = name
    tops = {zone: name for zone, name in names.items() if ":" not in zone.partition(":")[2]}
    packages = {zone: name for zone, name in tops.items() if name.startswith("package-")}
    found: list[tuple[str, Literal["cpu", "dram"], Path]] = [
        (name, "cpu", root / zone) for zone, name in (packages or _only(tops, "psys")).items()
    ]
    found += [
        (packages[parent], "dram", root / zone)
        for zone, name in names.items()
        if name == "dram" and (parent := zone.rpartition(":")[0]) in packages
    ]
    return sorted(found, key=lambda zone: (zone[1], [int(number) for number in re.findall(r"\d+", zone[0])]))


def _only(zones: dict[str, str], wanted: str) -> dict[str, str]:
    return {zone: name for zone, name in zones.items() if name == wanted}


def _name(folder: Path) -> str | None:
    try:
        return (folder / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))
