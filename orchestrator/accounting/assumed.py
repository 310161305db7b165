"""CPU energy where no meter counts it and the manifest gives the watts (``accounting.cpu_watts``). Pure.

A constant power over the time an attempt held its devices (or, with no device, was running): modelled, and said to be.
What a meter of the node booked is never replaced. These entries are made anew at each reading of the ledger and are not
in the energy log: the log holds what agents saw, and the manifest holds the watts.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.accounting.energy import windows
from orchestrator.lifecycle import AttemptRecord, JobRecord
from workers.contract import EnergyEntry, Method
from workers.units import MW_PER_W, PJ_PER_MJ

DEVICE = "cpu@accounting.cpu_watts"
"""The device these entries are of: no device at all, and the name says where it comes from."""


def assumed_cpu(job: JobRecord, entries: Sequence[EnergyEntry]) -> tuple[EnergyEntry, ...]:
    """One entry for each attempt whose CPU nobody metered, without a phase; none where the manifest gives no watts."""
    watts = job.spec.accounting.cpu_watts
    if watts is None:
        return ()
    power_mw = round(watts * MW_PER_W)
    made = []
    for attempt in job.attempts:
        own = [entry for entry in entries if entry.attempt == attempt.number]
        span = _span(attempt, own)
        if span is not None and all(entry.kind != "cpu" for entry in own):
            made.append(_entry(job.job_id, attempt.number, span, power_mw))
    return tuple(made)


def _span(attempt: AttemptRecord, entries: Sequence[EnergyEntry]) -> tuple[int, int] | None:
    """Start and end of what the attempt used, ns; ``None`` while that is not known."""
    held = windows(entries)
    if held:
        return min(window.start_ns for window in held), max(window.end_ns for window in held)
    return None if attempt.ended_ns is None else (attempt.started_ns, max(attempt.started_ns, attempt.ended_ns))


def _entry(job_id: str, number: int, span: tuple[int, int], power_mw: int) -> EnergyEntry:
    start_ns, end_ns = span
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=end_ns,
        device=DEVICE,
        model="unknown",
        kind="cpu",
        energy_mj=power_mw * (end_ns - start_ns) // PJ_PER_MJ,
        job_id=job_id,
        attempt=number,
        phase=None,
        share=1.0,
        method=Method.MODELLED,
    )
