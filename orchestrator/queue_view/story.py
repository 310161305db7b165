"""One job explained: why it waits or is where it is, what happened to it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import TABLE, AttemptState, JobRecord, JobState
from orchestrator.queue_view.controllers import NOT_RUNNING, REMEDY
from orchestrator.queue_view.jobs import JobView
from orchestrator.queue_view.logs import LogFile, last_lines, log_files
from orchestrator.queue_view.queue import QueueView, look
from orchestrator.queue_view.quotas import uses_of
from orchestrator.quotas import Quota
from orchestrator.report.figures import format_duration, format_number, format_time
from orchestrator.store import Store
from workers.contract import Resources
from workers.home import Home
from workers.units import NS_PER_S

LAST_LINES = 8
"""Of a failed job's log: enough for the error under a traceback's frames."""
STARTS = f"{JobState.QUEUED} -> {JobState.RUNNING}"
"""Said again, and better, by the attempt that starts."""
_HOLDERS = 3


@dataclass(frozen=True, kw_only=True)
class Need:
    """A job that another one needs; ``state`` is ``None`` where the ledger does not have it."""

    job_id: str
    state: JobState | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All that can be told of a job.

    Attributes:
        means: what its state means.
        story: what happened, oldest first: ns since the epoch, sentence.
        asks: the resources it asks for; ``controller``: how the one that sees to it is.
        bearing: quotas and fair share, as sentences.
        would_run: what must come about for it to start; empty for a job that does not wait.
        last_lines: the end of its last log, where it failed.
        remedy: what its people can do; ``None`` where there is nothing to be done.
    """

    job: JobView
    means: str
    story: tuple[tuple[int, str], ...]
    needs: tuple[Need, ...]
    asks: str
    controller: str | None
    bearing: tuple[str, ...]
    would_run: tuple[str, ...]
    logs: tuple[LogFile, ...]
    last_lines: tuple[str, ...]
    remedy: str | None

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; times in ns since the epoch, UTC."""
        return {
            **self.job.as_dict(),
            "state_means": self.means,
            "story": [{"time_ns": time_ns, "what": what} for time_ns, what in self.story],
            "needs": [{"job_id": n.job_id, "state": n.state, "reason": n.reason} for n in self.needs],
            "asks": self.asks,
            "controller": self.controller,
            "bearing": list(self.bearing),
            "would_run": list(self.would_run),
            "logs": [log.as_dict() for log in self.logs],
            "last_lines": list(self.last_lines),
            "remedy": self.remedy,
        }


def explain(home: Home, store: Store, job_id: str, *, now_ns: int) -> Explanation:
    """What happened to a job, what holds it up, and what would help.

    Raises:
        UnknownNameError: no such job.
    """
    record = store.job(job_id)
    unfinished = store.jobs(unfinished=True)
    queue = look(home, store, [record, *_holders(record, unfinished)], now_ns=now_ns)
    job, holders = queue.jobs[0], queue.jobs[1:]
    known = {one.job_id: one for one in store.jobs()} if record.spec.needs else {}
    needs = tuple(_need(need, known.get(need)) for need in record.spec.needs)
    logs = log_files(home, record)
    return Explanation(
        job=job,
        means=TABLE[record.state].means,
        story=_story(store.events(job_id), _names(queue)),
        needs=needs,
        asks=_asks(record.spec.resources),
        controller=_controller(record, queue),
        bearing=() if record.state.is_final else _bearing(record, store.quotas(), unfinished, queue),
        would_run=_would_run(job, needs, queue, holders),
        logs=logs,
        last_lines=last_lines(logs[-1].path, LAST_LINES) if logs and record.state is JobState.FAILED else (),
        remedy=_remedy(record, needs),
    )


def _need(job_id: str, job: JobRecord | None) -> Need:
    return Need(job_id=job_id, state=job.state if job else None, reason=job.reason if job else None)


def _controller(record: JobRecord, queue: QueueView) -> str | None:
    """How the controller is that sees to a job; ``None`` for one that needs none any more."""
    if record.state.is_final:
        return None
    controller = queue.controller_of(record)
    return NOT_RUNNING if controller is None else controller.sentence(queue.now_ns)


def _asks(wanted: Resources) -> str:
    """What a job holds while it runs, in words."""
    kinds = ", else ".join(wanted.accelerators) if wanted.accelerators and wanted.accelerators != "each" else "any type"
    each = " on each" if wanted.nodes > 1 else ""
    parts = [
        *([f"{wanted.nodes} nodes at once"] if wanted.nodes > 1 else []),
        f"{wanted.gpus:g} GPU{'' if wanted.gpus == 1 else 's'}{each} ({kinds})" if wanted.gpus else "no GPU",
        f"{wanted.cpus:g} CPU core{'' if wanted.cpus == 1 else 's'}{each}",
        *([f"{wanted.memory_gb:g} GB of memory{each}"] if wanted.memory_gb is not None else []),
        *(f"label {name}={value}" for name, value in wanted.labels.items()),
    ]
    return ", ".join(parts)


def _names(queue: QueueView) -> dict[str, str]:
    """Node id to name, where the ledger knows it."""
    return {node.node_id: node.name for controller in queue.controllers for node in controller.cluster.nodes}


def _story(events: Sequence[tuple[int, str]], names: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """The events, nodes by name, without what the line before has said already."""
    told: list[tuple[int, str]] = []
    for place, (time_ns, event) in enumerate(events):
        if event == STARTS and events[place + 1 :] and events[place + 1][1].startswith("attempt "):
            continue
        what = event
        for node_id, name in names.items():
            what = what.replace(node_id, name)
        step, colon, reason = what.partition(": ")
        repeats = colon and told and told[-1][1].endswith(f": {reason}")
        told.append((time_ns, step if repeats else what))
    return tuple(told)


def _bearing(
    record: JobRecord, quotas: Sequence[Quota], unfinished: Sequence[JobRecord], queue: QueueView
) -> tuple[str, ...]:
    told = []
    for use in uses_of(record, quotas, unfinished):
        parts = [
            f"{used:g} of {limit:g} {what}"
            for used, limit, what in (
                (use.gpus, use.quota.gpus, "GPUs held"),
                (use.queued_jobs, use.quota.queued_jobs, "jobs queued"),
            )
            if limit is not None
        ]
        told.append(f"quota of {use.quota.scope} {use.name}: {', '.join(parts)}")
    return (*told, *_share(record, queue))


def _share(record: JobRecord, queue: QueueView) -> tuple[str, ...]:
    """How much its user had lately, beside the others; nothing where nobody else counts, or it waits no more."""
    others = [used for user, used in queue.usage.items() if user != record.user]
    if record.state is not JobState.QUEUED or not others:
        return ()
    mine = queue.usage.get(record.user, 0.0)
    less, hours = sum(used < mine for used in others), mine / 3600
    return (
        f"fair share: {record.user or 'its user'} had {format_number(hours)} GPU-hours lately (yesterday's count half), "
        f"{less} of {len(others)} other users less; they come first at equal priority",
    )


def _would_run(job: JobView, needs: Sequence[Need], queue: QueueView, holders: Sequence[JobView]) -> tuple[str, ...]:
    """What must come about, the first thing first."""
    record = job.record
    if record.state is not JobState.QUEUED:
        return ()
    told = [] if queue.is_served(record) else [f"a controller runs; {REMEDY}"]
    unmet = [need for need in needs if need.state is not JobState.SUCCEEDED]
    told += [f"{need.job_id} has succeeded; it is {need.state}" for need in unmet]
    if record.ready_ns > queue.now_ns:
        pause = format_duration((record.ready_ns - queue.now_ns) / NS_PER_S)
        told.append(f"its pause is over, at {format_time(record.ready_ns)} (in {pause})")
    if job.place is not None and job.waits:
        told.append(job.waits)
        told += [_frees(holder) for holder in holders]
    return tuple(told)


def _holders(record: JobRecord, unfinished: Sequence[JobRecord]) -> tuple[JobRecord, ...]:
    """Jobs that hold what a queued job could use."""
    wanted = record.spec.resources
    if record.state is not JobState.QUEUED or not wanted.gpus:
        return ()
    return tuple(
        job
        for job in unfinished
        if job.state.holds_place
        and job.spec.resources.gpus
        and (not wanted.accelerators or job.attempts[-1].accelerator in wanted.accelerators)
    )[:_HOLDERS]


def _frees(holder: JobView) -> str:
    last = holder.record.attempts[-1]
    ends = "when it ends is not known yet" if holder.eta_s is None else f"ends in {format_duration(holder.eta_s)}"
    return f"{holder.job_id} holds {last.accelerator or 'a place'} on {', '.join(holder.nodes)}; {ends}"


def _remedy(record: JobRecord, needs: Sequence[Need]) -> str | None:
    """What its people can do about a job that did not succeed."""
    again = "submit the manifest again"
    bad = next((n for n in needs if n.state in (JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED)), None)
    if record.state is JobState.SKIPPED and bad:
        return f"see what became of {bad.job_id}: wattledger explain {bad.job_id}; then {again}"
    if record.state is JobState.CANCELLED:
        return f"to run it after all, {again}"
    if record.state is not JobState.FAILED:
        return None
    if not record.attempts:
        return f"it never ran; mend what the reason names, then {again}"
    if record.attempts[-1].state is AttemptState.LOST:
        return f"it was lost more often than retry.losses allows ({record.spec.retry.losses}); raise it, and {again}"
    return f"read its log (wattledger logs {record.job_id}), mend what it names, and {again}"
