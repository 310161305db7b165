"""The energy log and Prometheus brought together: which of the two counts, and how far they agree.

The log is the authority where it is whole, and Prometheus its witness; where entries are missing, Prometheus is the
source of those. Times of a node's logs are taken to the head's clock before Prometheus is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.accounting.clocks import Clocks, skews
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.phases import PhaseSpan, phase_spans
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.recovered import Attempted, recover
from orchestrator.accounting.testimony import recall, remember
from orchestrator.accounting.witness import Witness, hear
from orchestrator.lifecycle import AttemptRecord, AttemptState
from workers.contract import EnergyEntry
from workers.errors import UnreachableError
from workers.home import Home
from workers.metric_log import read_metrics


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What counts for a job.

    Attributes:
        evidence: its entries, those Prometheus had to stand in for included.
        witness: what Prometheus says of the entries that are the log's.
        notes: what a reader should know of the join: lost logs, clocks that are off.
    """

    evidence: Evidence
    witness: Witness
    notes: tuple[str, ...]


def join(home: Home, evidence: Evidence, prometheus: PrometheusClient | None, clocks: Clocks) -> Joined:
    """Bring a job's logs and Prometheus together. Whatever goes wrong is a note or a reason, never an error."""
    completed, notes = _complete(home, evidence, prometheus, clocks)
    witness = _witness(home, completed, prometheus, clocks)
    times = {node: evidence.entries[0].start_ns for node in set(evidence.node_of.values()) if evidence.entries}
    return Joined(evidence=completed, witness=witness, notes=(*notes, *skews(clocks, times)))


def _complete(
    home: Home, evidence: Evidence, prometheus: PrometheusClient | None, clocks: Clocks
) -> tuple[Evidence, tuple[str, ...]]:
    """The evidence with what the log lacks of ended attempts, and a note for each attempt that lacked something."""
    lacking = [attempted for attempted in _attempted(home, evidence) if not attempted.is_whole]
    found: list[EnergyEntry] = []
    notes = []
    for attempted in lacking:
        parts, note = _stand_in(attempted, prometheus, clocks)
        found += parts
        notes.append(note)
    if not lacking:
        return evidence, ()
    # Whoever lacks nothing after this is whole again, whatever could not be read.
    still = any(not _with(attempted, found).is_whole for attempted in lacking)
    return (
        replace(
            evidence,
            entries=tuple(sorted((*evidence.entries, *found), key=lambda entry: (entry.start_ns, entry.device))),
            recovered=tuple(found),
            damaged=evidence.damaged and still,
            incomplete=still,
        ),
        tuple(notes),
    )


def _attempted(home: Home, evidence: Evidence) -> tuple[Attempted, ...]:
    """The attempts that ended and were to hold GPUs."""
    job = evidence.job
    return tuple(
        Attempted(
            job_id=job.job_id,
            record=record,
            gpus=math.ceil(job.spec.resources.gpus) * job.spec.resources.nodes,
            entries=tuple(e for e in evidence.entries if e.kind == "gpu" and e.attempt == record.number),
            spans=_spans(home, evidence, record),
        )
        for record in job.attempts
        if record.state is not AttemptState.RUNNING and job.spec.resources.gpus
    )


def _spans(home: Home, evidence: Evidence, record: AttemptRecord) -> tuple[PhaseSpan, ...]:
    if record == evidence.last:
        return evidence.spans
    return phase_spans(read_metrics(home, evidence.job.job_id, record.number))


def _with(attempted: Attempted, found: Sequence[EnergyEntry]) -> Attempted:
    own = [entry for entry in found if entry.attempt == attempted.record.number and entry.kind == "gpu"]
    return replace(attempted, entries=(*attempted.entries, *own))


def _stand_in(
    attempted: Attempted, prometheus: PrometheusClient | None, clocks: Clocks
) -> tuple[tuple[EnergyEntry, ...], str]:
    """Prometheus' entries for what an attempt lacks, and the sentence about it."""
    name = f"attempt {attempted.record.number}"
    lost = f"the energy log has holes in {name}" if attempted.entries else f"the energy log has no GPU of {name}"
    if prometheus is None:
        return (), f"{lost}, and no Prometheus server was asked for it"
    try:
        found = recover(attempted, prometheus, clocks)
    except UnreachableError as error:
        return (), f"{lost}, and {str(error).rstrip('.')}"
    if not found:
        return (), f"{lost}, and Prometheus has no samples of it"
    return found, f"{lost}: Prometheus' samples of the device's counter stand in for it"


def _witness(home: Home, evidence: Evidence, prometheus: PrometheusClient | None, clocks: Clocks) -> Witness:
    """What Prometheus says now, else what it said of the same books before."""
    job_id, windows = evidence.job.job_id, evidence.logged_windows

    def offset_ns(device: str, time_ns: int) -> int:
        return clocks.offset_ns(evidence.node_of.get(device), time_ns)

    heard = hear(job_id, windows, prometheus, offset_ns=offset_ns)
    if heard.reason is not None:
        return recall(home, job_id, windows) or heard
    remember(home, heard, windows)
    return heard
