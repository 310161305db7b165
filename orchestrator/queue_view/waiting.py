"""What bears on a job that waits: its needs, its controller, its quotas, its share, and who holds what it could use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view.controllers import REMEDY
from orchestrator.queue_view.jobs import JobView
from orchestrator.queue_view.queue import QueueView
from orchestrator.queue_view.quotas import uses_of
from orchestrator.quotas import Quota
from orchestrator.report.figures import format_duration, format_number, format_time
from orchestrator.scheduling.deadlines import time_up
from workers.units import NS_PER_S

HOLDERS = 3
"""Jobs named that hold what another waits for."""
_WAITS = "waits for "


@dataclass(frozen=True, kw_only=True)
class Need:
    """A job that another one needs; ``state`` is ``None`` where the ledger does not have it."""

    job_id: str
    state: JobState | None
    reason: str | None


def starts_after(job: JobView, needs: Sequence[Need], queue: QueueView, holders: Sequence[JobView]) -> tuple[str, ...]:
    """What must come about before a job starts, the first thing first; nothing for one that does not wait."""
    record = job.record
    if record.state is not JobState.QUEUED:
        return ()
    told = [] if queue.is_served(record) else [f"a controller; {REMEDY}"]
    unmet = [need for need in needs if need.state is not JobState.SUCCEEDED]
    told += [f"{need.job_id} to succeed; it is {need.state or 'not in this ledger'}" for need in unmet]
    if record.ready_ns > queue.now_ns:
        left = format_duration((record.ready_ns - queue.now_ns) / NS_PER_S)
        told.append(f"the end of its pause at {format_time(record.ready_ns)}, in {left}")
    if job.place is not None and job.waits:
        told.append(job.waits.removeprefix(_WAITS))
        told += [_frees(holder) for holder in holders]
    return tuple(told)


def holders_of(record: JobRecord, unfinished: Sequence[JobRecord]) -> tuple[JobRecord, ...]:
    """Jobs that hold what a queued job could use, those that were there first first."""
    wanted = record.spec.resources
    if record.state is not JobState.QUEUED or not wanted.gpus:
        return ()
    holding = [job for job in unfinished if job.state.holds_place and job.spec.resources.gpus]
    fitting = [job for job in holding if not wanted.accelerators or job.attempts[-1].accelerator in wanted.accelerators]
    return tuple(sorted(fitting, key=lambda job: job.attempts[-1].started_ns)[:HOLDERS])


def _frees(holder: JobView) -> str:
    ends = "when it ends is not known yet" if holder.eta_s is None else f"ends in {format_duration(holder.eta_s)}"
    kind = holder.record.attempts[-1].accelerator or "a place"
    return f"{holder.job_id} holds {kind} on {', '.join(holder.nodes)}; {ends}"


def bearing_of(
    record: JobRecord, quotas: Sequence[Quota], unfinished: Sequence[JobRecord], queue: QueueView
) -> tuple[str, ...]:
    """Its limit of time, the quotas it falls under, and for one that waits its user's share, as sentences."""
    limit = time_up(record)
    told = [f"time: must have ended by {format_time(limit.time_ns)}"] if limit else []
    for use in uses_of(record, quotas, unfinished):
        figures = [(use.gpus, use.quota.gpus, "GPUs held"), (use.queued_jobs, use.quota.queued_jobs, "jobs queued")]
        parts = [f"{used:g} of {limit:g} {what}" for used, limit, what in figures if limit is not None]
        told.append(f"quota of {use.quota.scope} {use.name}: {', '.join(parts)}")
    return (*told, *_share(record, queue))


def _share(record: JobRecord, queue: QueueView) -> tuple[str, ...]:
    """How much its user had lately, beside the others; nothing where nobody else counts."""
    others = [used for user, used in queue.usage.items() if user != record.user]
    if record.state is not JobState.QUEUED or not others:
        return ()
    mine, who = queue.usage.get(record.user, 0.0), record.user or "its user"
    less = sum(used < mine for used in others)
    return (
        f"fair share: {who} had {format_number(mine / 3600)} GPU-hours lately, where yesterday's count half; "
        f"{less} of {len(others)} other users had less, and come first at equal priority",
    )
