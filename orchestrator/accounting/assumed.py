"""CPU and DRAM energy that no meter counts, by watts of the manifest (``accounting.cpu_watts``, ``dram_watts``). Pure.

A constant power over the time an attempt held its devices (or, with no device, was running): modelled, and said to be.
What a meter of the node booked is never replaced. These entries are made anew at each reading of the ledger and are not
in the energy log: the log holds what agents saw, and the manifest holds the watts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from orchestrator.accounting.energy import windows
from orchestrator.lifecycle import AttemptRecord, JobRecord
from workers.contract import Accounting, EnergyEntry, Method
from workers.units import MW_PER_W, PJ_PER_MJ

Kind = Literal["cpu", "dram"]
SOURCES: dict[Kind, str] = {"cpu": "cpu@accounting.cpu_watts", "dram": "dram@accounting.dram_watts"}
"""The ``device`` of these entries: no device at all, and the name says where it comes from."""


def assumed(job: JobRecord, entries: Sequence[EnergyEntry]) -> tuple[EnergyEntry, ...]:
    """One entry for each attempt and kind nobody metered, without a phase; none where the manifest has no watts."""
    made = []
    for attempt in job.attempts:
        own = [entry for entry in entries if entry.attempt == attempt.number]
        span = _span(attempt, own)
        for kind, watts in _watts(job.spec.accounting):
            if span is not None and all(entry.kind != kind for entry in own):
                power_mw = round(watts * job.spec.resources.nodes * MW_PER_W)
                made.append(_entry(job.job_id, attempt.number, kind, span, power_mw))
    return tuple(made)


def _watts(accounting: Accounting) -> list[tuple[Kind, float]]:
    kinds: list[tuple[Kind, float | None]] = [("cpu", accounting.cpu_watts), ("dram", accounting.dram_watts)]
    return [(kind, watts) for kind, watts in kinds if watts is not None]


def _span(attempt: AttemptRecord, entries: Sequence[EnergyEntry]) -> tuple[int, int] | None:
    """Start and end of what the attempt used, ns; ``None`` while that is not known."""
    held = windows(entries)
    if held:
        return min(window.start_ns for window in held), max(window.end_ns for window in held)
    return None if attempt.ended_ns is None else (attempt.started_ns, max(attempt.started_ns, attempt.ended_ns))


def _entry(job_id: str, number: int, kind: Kind, span: tuple[int, int], power_mw: int) -> EnergyEntry:
    start_ns, end_ns = span
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=end_ns,
        device=SOURCES[kind],
        model="unknown",
        kind=kind,
        energy_mj=power_mw * (end_ns - start_ns) // PJ_PER_MJ,
        job_id=job_id,
        attempt=number,
        phase=None,
        share=1.0,
        method=Method.MODELLED,
    )
