"""What can be run and measured here, and the exact command that gets what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

from orchestrator.monitoring.server import find_prometheus
from workers.agent import open_meter
from workers.contract import Device, Method
from workers.errors import CapError, WattledgerError
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


def examine(home: Home) -> tuple[Finding, ...]:
    """Look at everything; nothing is changed but for a folder being made and removed."""
    return (
        Finding(what="Python", level="ok", found=platform.python_version()),
        *_packages(),
        *_meter(),
        *_host_energy(),
        _prometheus(),
        _ledger(home),
    )


def _packages() -> list[Finding]:
    """Found without importing: loading torch to ask for its version would take seconds."""
    findings = []
    for module, extra in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            remedy = f"pip install -c constraints.txt 'wattledger[{extra}]'"
            findings.append(Finding(what=module, level="missing", found="not installed", remedy=remedy))
        else:
            name = {"sklearn": "scikit-learn"}.get(module, module)
            findings.append(Finding(what=module, level="ok", found=metadata.version(name)))
    return findings


def _meter(
    has_device: Callable[[], bool] = has_nvidia_device, open_: Callable[[], PowerMeter] | None = None
) -> list[Finding]:
    """Each GPU, how its energy is obtained, and whether its power can be capped."""
    if not has_device():
        return [
            Finding(
                what="GPU",
                level="note",
                found="no NVIDIA device: accelerators are simulated, and every figure of theirs says so",
                remedy="to measure, run on a machine where `nvidia-smi` lists a GPU",
            )
        ]
    try:
        meter = open_() if open_ else open_meter("nvml", node=platform.node())
    except WattledgerError as error:
        return [Finding(what="GPU", level="missing", found=str(error), remedy="install the driver; see `nvidia-smi`")]
    findings = [finding for device in meter.devices() for finding in _device(meter, device.uuid)]
    meter.close()
    return findings


def _device(meter: PowerMeter, uuid: str) -> list[Finding]:
    device = next(device for device in meter.devices() if device.uuid == uuid)
    how = {
        Method.COUNTER: "hardware energy counter, mJ",
        Method.INTEGRATED: "no energy counter; power is sampled and integrated",
    }.get(device.method, device.method.value)
    level = "ok" if device.method is Method.COUNTER else "note"
    return [
        Finding(what=f"{device.model} {uuid}", level=level, found=f"method {device.method}: {how}"),
        _cap(meter, uuid, device.model),
    ]


def _cap(meter: PowerMeter, uuid: str, model: str) -> Finding:
    """Whether the limit can be set, told from the range and the rights; the card's setting is not touched."""
    try:
        limits = meter.limit_range(uuid)
    except CapError as error:
        return Finding(what=f"{model} power cap", level="note", found=str(error))
    found = f"{limits.min_mw // MW_PER_W} to {limits.max_mw // MW_PER_W} W, default {limits.default_mw // MW_PER_W} W"
    if os.geteuid() == 0:
        return Finding(what=f"{model} power cap", level="ok", found=found)
    return Finding(
        what=f"{model} power cap",
        level="note",
        found=f"{found}; only root may set it",
        remedy="start the node's Ray as root, or leave power out of manifests",
    )


def _host_energy(open_: Callable[[], HostMeters] | None = None) -> list[Finding]:
    """How the energy of the CPU, and of its DRAM, is obtained; not at all is no hindrance, the row says why."""
    host = open_() if open_ else open_host_meters("auto", node=platform.node())
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


def _prometheus() -> Finding:
    program = find_prometheus()
    if program is None:
        return Finding(
            what="Prometheus",
            level="note",
            found="no prometheus program: the energy log alone serves, without a second witness",
            remedy="apt-get install prometheus",
        )
    return Finding(what="Prometheus", level="ok", found=str(program))


def _ledger(home: Home) -> Finding:
    """Whether the ledger's folder can be written, and has room."""
    place = home.root
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    if not os.access(place, os.W_OK):
        remedy = "name another folder with --home or WATTLEDGER_HOME"
        return Finding(what="ledger", level="missing", found=f"{place} cannot be written", remedy=remedy)
    if free_gb < LOW_DISK_GB:
        remedy = "free disk space, or name another folder with --home or WATTLEDGER_HOME"
        return Finding(what="ledger", level="missing", found=f"{free_gb:.1f} GB free in {place}", remedy=remedy)
    return Finding(what="ledger", level="ok", found=f"{home.root}, {free_gb:.0f} GB free")


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether nothing is missing."""
    return all(finding.level != "missing" for finding in findings)
