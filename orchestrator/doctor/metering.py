"""What can be measured here: each GPU and the host's own devices, how, and what would open the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.refresh import Refresh
from workers.contract import Device, Method, Quality
from workers.errors import CapError, MeterError, WattledgerError
from workers.telemetry.host import HostMeters
from workers.telemetry.meter import PowerMeter
from workers.telemetry.modelled import IDLE_PERCENT, rated_cpus, table_name
from workers.telemetry.nvml import Condition, NvmlMeter
from workers.telemetry.rapl import PLATFORM
from workers.units import MW_PER_W

Measure = Callable[[PowerMeter, str], Refresh | None]
"""How ``measure_refresh`` is called."""
GIB = 2**30
KINDS = {"cpu": "CPU", "dram": "DRAM"}
NVML_REMEDIES = {
    "Library Not Found": "`sudo apt-get install nvidia-driver`, or start the container with `--gpus all`",
    "Driver Not Loaded": "`sudo modprobe nvidia`",
    "shows no board": "`nvidia-smi -L` lists the boards; `unset CUDA_VISIBLE_DEVICES` if that hides them",
}
"""What NVML says, to the step that mends it."""
SLOWED = {"hardware slowdown", "heat, by software", "heat, by hardware", "power brake"}
"""Of what holds clocks back, what nobody asked for."""


def look_at_boards(open_nvml: Callable[[], NvmlMeter], refresh: Measure, *, is_root: bool) -> list[Finding]:
    """Each GPU: how its energy is obtained, how it is, and whether its power can be capped."""
    try:
        with contextlib.closing(open_nvml()) as meter:
            refreshes = _refreshes(meter, refresh)
            return [
                finding
                for device in meter.devices()
                for finding in (
                    _method(meter, device, refreshes.get((device.kind, device.model))),
                    _state(meter, device),
                    _cap(meter, device, may_set=is_root),
                )
            ] + [_left_out(board, why) for board, why in meter.silent.items()]
    except WattledgerError as error:
        remedies = (remedy for said, remedy in NVML_REMEDIES.items() if said in str(error))
        return [Finding(what="GPU", level="missing", found=str(error), remedy=next(remedies, "see `nvidia-smi`"))]


def _left_out(board: str, why: str) -> Finding:
    """A board that did not answer when it was opened."""
    remedy = "`nvidia-smi` says more; once it answers, start this node's agent again"
    return Finding(what=board, level="missing", found=f"left out, the others are metered: {why}", remedy=remedy)


def _refreshes(meter: PowerMeter, refresh: Measure) -> dict[tuple[str, str], Refresh]:
    """By kind and model, measured on the first device that tells: the others of it are built alike."""
    found: dict[tuple[str, str], Refresh] = {}
    for device in meter.devices():
        is_new = device.method is Method.COUNTER and (device.kind, device.model) not in found
        if is_new and (measured := refresh(meter, device.uuid)) is not None:
            found[device.kind, device.model] = measured
    return found


def _method(meter: PowerMeter, device: Device, refresh: Refresh | None) -> Finding:
    what = f"GPU {device.index}, {device.model}"
    try:
        meter.read(device.uuid)
    except MeterError as error:
        remedy = f"`nvidia-smi -q -i {device.uuid}` says more"
        return Finding(what=what, level="missing", found=f"{device.uuid} cannot be read: {error}", remedy=remedy)
    how = "no energy counter; power is sampled and integrated"
    if device.method is Method.COUNTER:
        how = f"hardware energy counter, mJ, {_every(refresh)}"
    found = [f"{device.uuid}, method {device.method}: {how}", _power(device)]
    if device.scope == "module":
        found.append("figures are the whole module's, its CPU included")
    if Quality.SHARED in device.quality:
        found.append("MIG is on: the whole board is metered, and its figures are marked shared")
    level = "ok" if len(found) == 2 and device.method is Method.COUNTER else "note"
    return Finding(what=what, level=level, found="; ".join(found))


def _every(refresh: Refresh | None) -> str:
    """How often a counter shows a new value."""
    if refresh is None:
        return "refresh not seen while it was watched"
    bound = " or less" if refresh.is_bound else ""
    return f"refreshed every {refresh.interval_ms:.0f} ms{bound} (measured)"


def _state(meter: NvmlMeter, device: Device) -> Finding:
    """How the board is at the moment: what no joule depends on, and explains them."""
    what = f"GPU {device.index} state"
    try:
        condition = meter.condition(device.uuid)
    except MeterError as error:
        return Finding(what=what, level="missing", found=str(error), remedy=f"`nvidia-smi -q -i {device.uuid}`")
    slowed = sorted(SLOWED.intersection(condition.throttle or ()))
    return Finding(
        what=what,
        level="note" if slowed else "ok",
        found=_condition(condition),
        remedy=f"`nvidia-smi -q -d PERFORMANCE,TEMPERATURE -i {device.uuid}`" if slowed else None,
    )


def _condition(condition: Condition) -> str:
    """The condition as a clause; what is not told is left out."""
    parts = []
    if condition.memory_used_bytes is not None and condition.memory_total_bytes is not None:
        parts.append(f"{condition.memory_used_bytes / GIB:.1f} of {condition.memory_total_bytes / GIB:.1f} GiB used")
    if condition.temperature_c is not None:
        parts.append(f"{condition.temperature_c} °C")
    if condition.sm_clock_mhz is not None:
        parts.append(f"SM clock {condition.sm_clock_mhz} MHz")
    if condition.throttle is not None:
        parts.append(f"held back by {', '.join(condition.throttle)}" if condition.throttle else "not held back")
    return "; ".join(parts) or "nothing told"


def _power(device: Device) -> str:
    """What a power reading of the device stands for."""
    if device.power_window_ms is None:
        return "power not told"
    if device.power_window_ms == 0:
        return "power is its sensor's latest sample"
    return f"power is averaged over {device.power_window_ms / 1000:g} s"


def _cap(meter: PowerMeter, device: Device, *, may_set: bool) -> Finding:
    """Whether the limit can be set, told from the range and the rights; the card's setting is not touched."""
    what = f"GPU {device.index} power cap"
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
        remedy="`sudo ray start …` on this node, or leave power out of manifests",
    )


def look_at_host(host: HostMeters, refresh: Measure) -> list[Finding]:
    """How the energy of the CPU, and of its DRAM, is obtained; not at all is no hindrance, the row says why."""
    findings = []
    for meter in host.meters:
        every = _refreshes(meter, refresh)
        findings += [_host_device(device, host, every.get((device.kind, device.model))) for device in meter.devices()]
    missing = [
        Finding(what=f"{KINDS[kind]} energy", level="note", found=why.reason, remedy=why.remedy or None)
        for kind, why in host.missing.items()
    ]
    return [*findings, *missing]


def _host_device(device: Device, host: HostMeters, refresh: Refresh | None) -> Finding:
    what = f"{KINDS[device.kind]} energy, {device.uuid.partition('@')[0]}"
    if device.method is Method.MODELLED:
        rated = rated_cpus()[table_name(device.model)]
        return Finding(
            what=what,
            level="note",
            found=f"method modelled: {device.model}, {rated.tdp_w} W by its maker × utilisation, "
            f"{IDLE_PERCENT} % of it idle (assumed); averaged over the time between two looks",
            remedy=host.fallback.remedy if host.fallback else None,
        )
    if device.uuid.startswith(PLATFORM):
        found = f"method counter: RAPL psys of {device.model}: the whole platform, which is more than the CPU"
        return Finding(what=what, level="note", found=f"{found}; {_every(refresh)}")
    return Finding(what=what, level="ok", found=f"method counter: RAPL of {device.model}, {_every(refresh)}")
