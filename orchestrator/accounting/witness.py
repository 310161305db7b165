"""What Prometheus says a job drew, beside what the energy log says. The log is the authority, this is the witness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.accounting.energy import DeviceWindow
from orchestrator.accounting.prometheus import PrometheusClient, energy_between
from workers.errors import UnreachableError
from workers.telemetry.catalogue import DEVICE_ENERGY
from workers.units import joules_to_kwh, mj_to_joules

NO_SERVER = "no Prometheus server was asked"
NO_WINDOWS = "the energy log shows no GPU of this job, so there is no time to ask about"


@dataclass(frozen=True, kw_only=True)
class Witness:
    """GPU energy of a job by Prometheus, over the very spans the energy log covers.

    Attributes:
        energy_kwh: over all attempts and devices; ``None`` where any of them is not known.
        disagreement_percent: ``100 (Prometheus - log) / log``, signed; ``None`` where it cannot be said.
        reason: why either is ``None``; ``None`` when both are known.
    """

    job_id: str
    energy_kwh: float | None
    disagreement_percent: float | None
    reason: str | None


def hear(job_id: str, windows: Sequence[DeviceWindow], prometheus: PrometheusClient | None) -> Witness:
    """Ask for the energy of every window of a job's GPUs. Whatever goes wrong is a reason, never an error."""

    def unknown(reason: str, energy_kwh: float | None = None) -> Witness:
        return Witness(job_id=job_id, energy_kwh=energy_kwh, disagreement_percent=None, reason=reason)

    if prometheus is None:
        return unknown(NO_SERVER)
    if not windows:
        return unknown(NO_WINDOWS)
    total_j = 0.0
    for window in windows:
        drawn_j = _drawn_j(window, prometheus)
        if isinstance(drawn_j, str):
            return unknown(drawn_j)
        total_j += drawn_j
    logged_j = mj_to_joules(sum(window.energy_mj for window in windows))
    if logged_j == 0:
        return unknown("the energy log counts 0 J, and nothing can be a percentage of that", joules_to_kwh(total_j))
    percent = 100 * (total_j - logged_j) / logged_j
    return Witness(job_id=job_id, energy_kwh=joules_to_kwh(total_j), disagreement_percent=percent, reason=None)


def _drawn_j(window: DeviceWindow, prometheus: PrometheusClient) -> float | str:
    """Joules of one window, or why they are not known."""
    if window.shared:
        return f"device {window.device} was shared; its counter shows what all its holders drew"
    try:
        samples = prometheus.counter(DEVICE_ENERGY.name, window.device, window.start_ns, window.end_ns)
    except UnreachableError as error:
        return str(error)
    if not samples:
        return f"Prometheus has no samples of device {window.device} in that time"
    drawn_j = energy_between(samples, window.start_ns, window.end_ns)
    return (
        drawn_j
        if drawn_j is not None
        else (
            f"Prometheus' samples of device {window.device} do not reach both ends of attempt {window.attempt}; "
            "for one that just ended, ask again after the next scrape"
        )
    )
