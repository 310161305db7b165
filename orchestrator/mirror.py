"""The unfinished jobs of a ledger in memory, kept up by its events, so that a look costs by what has changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from typing import TypeVar

from orchestrator.lifecycle import AttemptRecord, JobRecord, JobState, Stop
from orchestrator.scheduling.deadlines import TimeUp, time_up
from orchestrator.scheduling.needs import InVain, in_vain
from orchestrator.scheduling.shares import Span, decayed, faded
from orchestrator.store import Store
from workers.units import NS_PER_S

Value = TypeVar("Value")

_FORGOTTEN_NS = 20 * 86_400 * NS_PER_S
"""Use older than twenty half-lives is a millionth of itself."""


class Mirror:
    """What one controller drives: the jobs of some runs, or all that are not bound to a process.

    Attributes:
        jobs: the unfinished ones, by id, in the order they came.
        states: theirs, and those of all jobs that they need, by id.
        leaving: what those were asked that are to leave their places, by id.
    """

    def __init__(self, store: Store, *, run_ids: Collection[str] = ()) -> None:
        self._store, self._run_ids = store, frozenset(run_ids)
        self.jobs: dict[str, JobRecord] = {}
        self.states: dict[str, JobState] = {}
        self.leaving: dict[str, Stop] = {}
        self._children: dict[str, set[str]] = {}  # unfinished jobs by what they need
        self._doubtful: set[str] = set()  # queued jobs whose needs have changed since they were last looked at
        self._limits: dict[str, TimeUp] = {}
        self._ready_ns: dict[str, int] = {}
        self._event: int | None = None  # the last one seen
        self._spans: list[Span] = []  # what ended since ...
        self._usage: Mapping[str | None, float] = {}  # ... this was summed up ...
        self._usage_ns: int | None = None  # ... then; not yet

    def refresh(self) -> set[str]:
        """Take over what changed in the ledger, and give the ids of those jobs."""
        last = self._store.last_event()
        if last == self._event:
            return set()
        if self._event is None:
            changed = self._store.jobs(unfinished=True)
        else:
            changed = self._store.jobs_changed(after_event=self._event)
        self._event = last
        for job in changed:
            self._take(job)
        self._look_up_needs()
        return {job.job_id for job in changed}

    def _take(self, job: JobRecord) -> None:
        if job.job_id in self.states:
            self.states[job.job_id] = job.state
        self._doubtful |= self._children.get(job.job_id, set())
        is_ours = job.run_id in self._run_ids if self._run_ids else not job.bound
        before = self.jobs.get(job.job_id)
        if before is not None and before.state.holds_place:
            self._count(job, job.attempts[len(before.attempts) - 1])
        if is_ours and not job.state.is_final:
            self._keep(job, is_new=before is None)
        elif before is not None:
            self._drop(before)

    def _keep(self, job: JobRecord, *, is_new: bool) -> None:
        self.jobs[job.job_id], self.states[job.job_id] = job, job.state
        if is_new:
            for need in job.spec.needs:
                self._children.setdefault(need, set()).add(job.job_id)
            if job.spec.needs:
                self._doubtful.add(job.job_id)
        _set(self.leaving, job.job_id, job.stop)
        _set(self._limits, job.job_id, time_up(job))
        _set(self._ready_ns, job.job_id, job.ready_ns if job.state is JobState.QUEUED and job.ready_ns else None)

    def _drop(self, job: JobRecord) -> None:
        del self.jobs[job.job_id]
        for kept in (self.leaving, self._limits, self._ready_ns):
            kept.pop(job.job_id, None)
        self._doubtful.discard(job.job_id)
        for need in job.spec.needs:
            self._children[need].discard(job.job_id)
            if not self._children[need]:
                del self._children[need]
                if need not in self.jobs:
                    self.states.pop(need, None)
        if job.job_id not in self._children:
            self.states.pop(job.job_id, None)

    def _look_up_needs(self) -> None:
        unknown = self._children.keys() - self.states.keys()
        if unknown:
            self.states |= self._store.states(unknown)

    def _count(self, job: JobRecord, attempt: AttemptRecord) -> None:
        if attempt.ended_ns is not None:
            self._spans.append(_span(job, attempt))

    def in_vain(self) -> Mapping[str, InVain]:
        """The queued jobs that can never start, by id, since what they need did not succeed."""
        found = {}
        for job_id in sorted(self._doubtful):
            job = self.jobs[job_id]
            verdict = in_vain(job, self.states) if job.state is JobState.QUEUED else None
            if verdict is None:
                self._doubtful.discard(job_id)
            else:
                found[job_id] = verdict
        return found

    def overdue(self, now_ns: int) -> Mapping[str, TimeUp]:
        """The jobs whose time is up, by id."""
        return {job_id: limit for job_id, limit in self._limits.items() if limit.time_ns <= now_ns}

    def became_ready(self, since_ns: int, now_ns: int) -> bool:
        """Whether a pause between two attempts has ended since then."""
        return any(since_ns < ready_ns <= now_ns for ready_ns in self._ready_ns.values())

    def next_ns(self, now_ns: int) -> int | None:
        """When something is to be done next because of the time alone, ns since the epoch."""
        times = chain((limit.time_ns for limit in self._limits.values()), self._ready_ns.values())
        return min((time_ns for time_ns in times if time_ns > now_ns), default=None)

    def usage(self, now_ns: int) -> Mapping[str | None, float]:
        """GPU-seconds of each user, decayed: what ended before is summed up once and fades as a whole."""
        if self._usage_ns is None:
            spans = self._store.attempt_spans(now_ns - _FORGOTTEN_NS)
            self._spans = [span for span in spans if span.ended_ns is not None]
            self._usage_ns = now_ns
        ended = faded(self._usage, (now_ns - self._usage_ns) / NS_PER_S)
        fresh = decayed(self._spans, now_ns)
        self._usage = {user: ended.get(user, 0.0) + fresh.get(user, 0.0) for user in {**ended, **fresh}}
        self._usage_ns, self._spans = now_ns, []
        held = decayed((_span(job, job.attempts[-1]) for job in self.jobs.values() if job.state.holds_place), now_ns)
        return {user: self._usage.get(user, 0.0) + held.get(user, 0.0) for user in {**self._usage, **held}}


def _span(job: JobRecord, attempt: AttemptRecord) -> Span:
    return job.user, job.spec.resources.gpus * len(attempt.nodes), attempt.started_ns, attempt.ended_ns


def _set(kept: dict[str, Value], key: str, value: Value | None) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        kept[key] = value
