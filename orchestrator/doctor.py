"""What can be run and measured here, and the exact command that gets what is missing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.monitoring.server import find_prometheus
from workers.agent import open_meter
from workers.contract import Device, Method, Quality
from workers.errors import CapError, MeterError, WattledgerError
from workers.home import Home
from workers.telemetry.host import HostMeters, open_host_meters
from workers.telemetry.meter import PowerMeter
from workers.telemetry.modelled import IDLE_PERCENT, rated_cpus, table_name
from workers.telemetry.nvml import has_nvidia_device
from workers.telemetry.rapl import PLATFORM
from workers.units import MW_PER_W

PACKAGES = {
    "ray": "cluster",
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "sklearn": "train",
    "jinja2": "report",
    "matplotlib": "report",
}
"""Module to the extra that brings it."""
KINDS = {"cpu": "CPU", "dram": "DRAM"}
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Module to the package that has it, where the names differ."""
LOW_DISK_GB = 2.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``note`` (works, but know this) or ``missing`` (something will not work).
        remedy: the command or step that mends it; ``None`` when nothing is to be done.
    """

    what: str
    level: str
    found: str
    remedy: str | None = None


def installed_version(module: str) -> str | None:
    """A module's version, without importing it, which would take seconds; ``None`` when it is not installed."""
    try:
        found = importlib.util.find_spec(module)
        # A folder of that name where the command is run is found too, but has nothing to load.
        return metadata.version(DISTRIBUTIONS.get(module, module)) if found and found.loader else None
    except metadata.PackageNotFoundError:
        return "of no known version"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is asked of a machine; each answer can be given, to examine another than this one.

    Attributes:
        version: an installed module's version, or ``None``.
        has_nvidia: whether the kernel shows an NVIDIA device.
        nvml: opens its meter; raises ``WattledgerError``.
        is_root: whether this process may set power limits.
        host: opens the meters of CPU and DRAM, and says why not.
        prometheus: where the program is, or ``None``.
        may_write: whether this process may make files in a folder; ``free_bytes``: room on the disk that holds it.
    """

    version: Callable[[str], str | None] = installed_version
    has_nvidia: Callable[[], bool] = has_nvidia_device
    nvml: Callable[[], PowerMeter] = lambda: open_meter("nvml", node=platform.node())
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    host: Callable[[], HostMeters] = lambda: open_host_meters("auto", node=platform.node())
    prometheus: Callable[[], Path | None] = find_prometheus
    may_write: Callable[[Path], bool] = lambda folder: os.access(folder, os.W_OK | os.X_OK)
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free


def examine(home: Home, machine: Machine = Machine()) -> tuple[Finding, ...]:
    """Look at everything; nothing is changed."""
    return (
        Finding(what="Python", level="ok", found=platform.python_version()),
        *(_package(module, machine.version(module)) for module in PACKAGES),
        *_boards(machine),
        *_host_energy(machine.host()),
        _prometheus(machine.prometheus()),
        _ledger(home, machine),
    )


def _package(module: str, version: str | None) -> Finding:
    if version is None:
        remedy = f"pip install -c constraints.txt 'wattledger[{PACKAGES[module]}]'"
        return Finding(what=module, level="missing", found="not installed", remedy=remedy)
    return Finding(what=module, level="ok", found=version)


def _boards(machine: Machine) -> list[Finding]:
    """Each GPU, how its energy is obtained, and whether its power can be capped."""
    if not machine.has_nvidia():
        return [
            Finding(
                what="GPU",
                level="note",
                found="no NVIDIA device: accelerators are simulated, and every figure of theirs says so",
                remedy="to measure, run on a machine where `nvidia-smi` lists a GPU",
            )
        ]
    try:
        with contextlib.closing(machine.nvml()) as meter:
            return [
                finding
                for device in meter.devices()
                for finding in (_method(device), _cap(meter, device, may_set=machine.is_root()))
            ]
    except WattledgerError as error:
        return [Finding(what="GPU", level="missing", found=str(error), remedy="install the driver; see `nvidia-smi`")]


def _method(device: Device) -> Finding:
    how = {
        Method.COUNTER: "hardware energy counter, mJ",
        Method.INTEGRATED: "no energy counter; power is sampled and integrated",
    }.get(device.method, device.method.value)
    found = [f"method {device.method}: {how}", _power(device)]
    if device.scope == "module":
        found.append("figures are the whole module's, its CPU included")
    if Quality.SHARED in device.quality:
        found.append("MIG is on: the whole board is metered, and its figures are marked shared")
    level = "ok" if len(found) == 2 and device.method is Method.COUNTER else "note"
    return Finding(what=f"{device.model} {device.uuid}", level=level, found="; ".join(found))


def _power(device: Device) -> str:
    """What a power reading of the device stands for."""
    if device.power_window_ms is None:
        return "power not told"
    if device.power_window_ms == 0:
        return "power is its sensor's latest sample"
    return f"power is averaged over {device.power_window_ms / 1000:g} s"


def _cap(meter: PowerMeter, device: Device, *, may_set: bool) -> Finding:
    """Whether the limit can be set, told from the range and the rights; the card's setting is not touched."""
    what = f"{device.model} power cap"
    try:
        limits = meter.limit_range(device.uuid)
    except CapError as error:
        return Finding(what=what, level="note", found=str(error))
    except MeterError as error:
        return Finding(what=what, level="missing", found=str(error))
    found = f"{limits.min_mw // MW_PER_W} to {limits.max_mw // MW_PER_W} W, default {limits.default_mw // MW_PER_W} W"
    if may_set:
        return Finding(what=what, level="ok", found=found)
    return Finding(
        what=what,
        level="note",
        found=f"{found}; only root may set it",
        remedy="start the node's Ray as root, or leave power out of manifests",
    )


def _host_energy(host: HostMeters) -> list[Finding]:
    """How the energy of the CPU, and of its DRAM, is obtained; not at all is no hindrance, the row says why."""
    devices = [device for meter in host.meters for device in meter.devices()]
    findings = [_host_device(device, host) for device in devices]
    missing = [
        Finding(what=f"{KINDS[kind]} energy", level="note", found=why.reason, remedy=why.remedy or None)
        for kind, why in host.missing.items()
    ]
    return [*findings, *missing]


def _host_device(device: Device, host: HostMeters) -> Finding:
    what = f"{KINDS[device.kind]} energy, {device.uuid.partition('@')[0]}"
    if device.method is Method.MODELLED:
        rated = rated_cpus()[table_name(device.model)]
        return Finding(
            what=what,
            level="note",
            found=f"method modelled: {device.model}, {rated.tdp_w} W by its maker × utilisation, "
            f"{IDLE_PERCENT} % of it idle (assumed)",
            remedy=host.fallback.remedy if host.fallback else None,
        )
    if device.uuid.startswith(PLATFORM):
        found = f"method counter: RAPL psys of {device.model}: the whole platform, which is more than the CPU"
        return Finding(what=what, level="note", found=found)
    return Finding(what=what, level="ok", found=f"method counter: RAPL of {device.model}")


def _prometheus(program: Path | None) -> Finding:
    if program is None:
        return Finding(
            what="Prometheus",
            level="note",
            found="no prometheus program: the energy log alone serves, without a second witness",
            remedy="apt-get install prometheus",
        )
    return Finding(what="Prometheus", level="ok", found=str(program))


def _ledger(home: Home, machine: Machine) -> Finding:
    """Whether the ledger's folder can be written, and has room."""
    remedy = "name another folder with --home or WATTLEDGER_HOME"
    place = next(folder for folder in (home.root, *home.root.parents) if os.path.lexists(folder))
    if not place.is_dir():
        return Finding(what="ledger", level="missing", found=f"{place} is not a folder", remedy=remedy)
    if not machine.may_write(place):
        return Finding(what="ledger", level="missing", found=f"{place} cannot be written", remedy=remedy)
    free_gb = machine.free_bytes(place) / 1e9
    if free_gb < LOW_DISK_GB:
        found = f"{free_gb:.1f} GB free in {place}"
        return Finding(what="ledger", level="missing", found=found, remedy=f"free disk space, or {remedy}")
    return Finding(what="ledger", level="ok", found=f"{home.root}, {free_gb:.0f} GB free")


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether nothing is missing."""
    return all(finding.level != "missing" for finding in findings)
