"""What Prometheus says a job drew, beside what the energy log says. The log is the authority, this is the witness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.accounting.energy import DeviceWindow
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.samples import CounterCurve
from workers.contract import Quality
from workers.errors import UnreachableError
from workers.telemetry.catalogue import DEVICE_ENERGY
from workers.units import joules_to_kwh, mj_to_joules

NO_SERVER = "no Prometheus server was asked"
NO_WINDOWS = "the energy log shows no GPU of this job, so there is no time to ask about"

Offset = Callable[[str, int], int]
"""Device and a time of its node, ns, to what is to be taken off that time to have the server's, ns."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """GPU energy of a job by Prometheus, over the very spans the energy log covers.

    Attributes:
        energy_kwh: over all attempts and devices; ``None`` where any of them is not known.
        disagreement_percent: ``100 (Prometheus - log) / log``, signed; ``None`` where it cannot be said.
        reason: why either is ``None``; ``None`` when both are known.
        quality: ``reset`` where a counter started anew meanwhile and was bridged, ``shared`` where a shared device's
            counter was split as the log has it.
        curves: attempt and device to the counter as it was sampled, and what to take off the node's time to have the
            server's; of a testimony there are none.
    """

    job_id: str
    energy_kwh: float | None
    disagreement_percent: float | None
    reason: str | None
    quality: frozenset[Quality] = frozenset()
    curves: Mapping[tuple[int, str], tuple[CounterCurve, int]] = field(default_factory=dict, compare=False)


def same_time(_device: str, _time_ns: int) -> int:
    """The offset of clocks that agree."""
    return 0


def hear(
    job_id: str, windows: Sequence[DeviceWindow], prometheus: PrometheusClient | None, *, offset_ns: Offset = same_time
) -> Witness:
    """Ask for the energy of every window of a job's GPUs. Whatever goes wrong is a reason, never an error."""

    def unknown(reason: str, energy_kwh: float | None = None) -> Witness:
        return Witness(job_id=job_id, energy_kwh=energy_kwh, disagreement_percent=None, reason=reason)

    if prometheus is None:
        return unknown(NO_SERVER)
    if not windows:
        return unknown(NO_WINDOWS)
    total_j, quality = 0.0, set[Quality]()
    curves: dict[tuple[int, str], tuple[CounterCurve, int]] = {}
    for window in windows:
        ahead_ns = offset_ns(window.device, window.start_ns)
        curve = _curve(window, prometheus, ahead_ns)
        drawn = curve if isinstance(curve, str) else _drawn(window, curve, ahead_ns)
        if isinstance(drawn, str) or isinstance(curve, str):
            return unknown(str(drawn))
        total_j += drawn[0]
        quality |= drawn[1]
        curves[window.attempt, window.device] = curve, ahead_ns
    logged_j = mj_to_joules(sum(window.energy_mj for window in windows))
    if logged_j == 0:
        return unknown("the energy log counts 0 J, and nothing can be a percentage of that", joules_to_kwh(total_j))
    return Witness(
        job_id=job_id,
        energy_kwh=joules_to_kwh(total_j),
        disagreement_percent=100 * (total_j - logged_j) / logged_j,
        reason=None,
        quality=frozenset(quality),
        curves=curves,
    )


def _curve(window: DeviceWindow, prometheus: PrometheusClient, offset_ns: int) -> CounterCurve | str:
    """A device's counter around one window, or why it is not known."""
    if window.shared and not window.pieces:
        return f"device {window.device} was shared; its counter shows what all its holders drew"
    start_ns, end_ns = window.start_ns - offset_ns, window.end_ns - offset_ns
    try:
        samples = prometheus.counter(DEVICE_ENERGY.name, window.device, start_ns, end_ns)
    except UnreachableError as error:
        return str(error)
    if not samples:
        return f"Prometheus has no samples of device {window.device} in that time"
    return CounterCurve(samples)


def _drawn(window: DeviceWindow, curve: CounterCurve, offset_ns: int) -> tuple[float, set[Quality]] | str:
    """Joules of one window and their flags, or why they are not known."""
    start_ns, end_ns = window.start_ns - offset_ns, window.end_ns - offset_ns
    flags = {Quality.RESET} if curve.was_reset(start_ns, end_ns) else set()
    if not window.shared:
        drawn_j = curve.between(start_ns, end_ns)
    else:
        flags.add(Quality.SHARED)
        drawn_j = _shared_j(curve, window, offset_ns)
    if drawn_j is None:
        return (
            f"Prometheus' samples of device {window.device} do not reach both ends of attempt {window.attempt}; "
            "for one that just ended, ask again after the next scrape"
        )
    return drawn_j, flags


def _shared_j(curve: CounterCurve, window: DeviceWindow, offset_ns: int) -> float | None:
    """The attempt's part of a shared device's counter: over each piece of time, the share the log has for it."""
    parts = [
        (curve.between(start_ns - offset_ns, end_ns - offset_ns), share) for start_ns, end_ns, share in window.pieces
    ]
    known = [part_j * share for part_j, share in parts if part_j is not None]
    return sum(known) if len(known) == len(parts) else None
