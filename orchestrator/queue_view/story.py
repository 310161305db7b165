"""One job explained: why it waits or is where it is, what happened to it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import TABLE, AttemptState, JobRecord, JobState
from orchestrator.queue_view.controllers import NOT_RUNNING
from orchestrator.queue_view.jobs import JobView
from orchestrator.queue_view.logs import LogFile, last_lines, log_files
from orchestrator.queue_view.queue import QueueView, look
from orchestrator.queue_view.waiting import Need, bearing_of, holders_of, starts_after
from orchestrator.store import Store
from workers.contract import Resources
from workers.home import Home
from workers.units import NS_PER_S

LAST_LINES = 8
"""Of a failed job's log: enough for the error under a traceback's frames."""
STARTS = f"{JobState.QUEUED} -> {JobState.RUNNING}"
"""Said again, and better, by the attempt that starts."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All that can be told of a job.

    Attributes:
        means: what its state means.
        story: what happened, oldest first: ns since the epoch, sentence.
        asks: the resources it asks for; ``controller``: how the one that sees to it is.
        bearing: quotas and fair share, as sentences.
        starts_after: what must come about for it to start; empty for a job that does not wait.
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
    starts_after: tuple[str, ...]
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
            "starts_after": list(self.starts_after),
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
    queue = look(home, store, [record, *holders_of(record, unfinished)], now_ns=now_ns)
    job, holders = queue.jobs[0], queue.jobs[1:]
    states = store.states(record.spec.needs)
    needs = tuple(_need(store, need, states.get(need)) for need in record.spec.needs)
    logs = log_files(home, record)
    return Explanation(
        job=job,
        means=TABLE[record.state].means,
        story=_story(store.events(job_id), _names(queue)),
        needs=needs,
        asks=_asks(record.spec.resources),
        controller=_controller(record, queue),
        bearing=() if record.state.is_final else bearing_of(record, store.quotas(), unfinished, queue),
        starts_after=starts_after(job, needs, queue, holders),
        logs=logs,
        last_lines=_last_lines(logs) if record.state is JobState.FAILED else (),
        remedy=_remedy(record, needs),
    )


def _need(store: Store, job_id: str, state: JobState | None) -> Need:
    return Need(job_id=job_id, state=state, reason=store.job(job_id).reason if state else None)


def _last_lines(logs: Sequence[LogFile]) -> tuple[str, ...]:
    """What the last attempt said last; its first rank speaks for all."""
    of_first_rank = [log for log in logs if log.rank == 0]
    return last_lines(of_first_rank[-1].path, LAST_LINES) if of_first_rank else ()


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


def _remedy(record: JobRecord, needs: Sequence[Need]) -> str | None:
    """What its people can do about a job that did not succeed."""
    again = "submit the manifest again"
    if record.state is JobState.FAILED:
        return f"{_mend(record)}, and {again}"
    if record.state is JobState.CANCELLED:
        return f"to run it after all, {again}"
    bad = next((n for n in needs if n.state in (JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED)), None)
    if record.state is JobState.SKIPPED and bad:
        return f"see what became of {bad.job_id} (wattledger explain {bad.job_id}), and {again}"
    return None


def _mend(record: JobRecord) -> str:
    """What a job that failed needs before it is worth another try."""
    if (limit := _limit_met(record)) is not None:
        return f"its time was up; raise schedule.{limit}"
    if not record.attempts:
        return "it never ran; mend what the reason names"
    if record.attempts[-1].state is AttemptState.LOST:
        return f"it was lost more often than retry.losses allows ({record.spec.retry.losses}); raise it"
    return f"read its log (wattledger logs {record.job_id}), mend what it names"


def _limit_met(record: JobRecord) -> str | None:
    """The key of the manifest that set the limit at which a job was ended."""
    schedule = record.spec.schedule
    if schedule.deadline is not None and schedule.deadline in (record.reason or ""):
        return "deadline"
    last = record.attempts[-1] if record.attempts else None
    if schedule.time_limit_s is None or last is None or last.ended_ns is None:
        return None
    return "time_limit_s" if last.ended_ns - last.started_ns >= schedule.time_limit_s * NS_PER_S else None
