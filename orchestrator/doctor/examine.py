"""The machine that is looked at, and the order in which it is."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.metering import Measure, look_at_boards, look_at_host
from orchestrator.doctor.refresh import measure_refresh
from orchestrator.monitoring.server import find_prometheus
from workers.home import Home
from workers.telemetry.host import HostMeters, open_host_meters
from workers.telemetry.nvml import NvmlMeter, has_nvidia_device

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
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Module to the package that has it, where the names differ."""
LOW_DISK_GB = 2.0


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
        refresh: measures how often a device's counter shows a new value.
        is_root: whether this process may set power limits.
        host: opens the meters of CPU and DRAM, and says why not.
        prometheus: where the program is, or ``None``.
        may_write: whether this process may make files in a folder; ``free_bytes``: room on the disk that holds it.
    """

    version: Callable[[str], str | None] = installed_version
    has_nvidia: Callable[[], bool] = has_nvidia_device
    nvml: Callable[[], NvmlMeter] = NvmlMeter
    refresh: Measure = measure_refresh
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
        *look_at_host(machine.host(), machine.refresh),
        _prometheus(machine.prometheus()),
        _ledger(home, machine),
    )


def _package(module: str, version: str | None) -> Finding:
    if version is None:
        remedy = f"pip install -c constraints.txt 'wattledger[{PACKAGES[module]}]'"
        return Finding(what=module, level="missing", found="not installed", remedy=remedy)
    return Finding(what=module, level="ok", found=version)


def _boards(machine: Machine) -> list[Finding]:
    """The GPUs, or that there are none."""
    if machine.has_nvidia():
        return look_at_boards(machine.nvml, machine.refresh, is_root=machine.is_root())
    return [
        Finding(
            what="GPU",
            level="note",
            found="no NVIDIA device: accelerators are simulated, and every figure of theirs says so",
            remedy="to measure, run on a machine where `nvidia-smi` lists a GPU",
        )
    ]


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
