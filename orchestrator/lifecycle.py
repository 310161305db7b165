"""The job state table: every state, who sets it, and what may follow. Pure: the store and the controller obey it.

A state says where a job is; *why* it is there is kept apart, in ``reason``, for people to read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from orchestrator.turn import Turn, turn_of
from workers.contract import JobSpec
from workers.errors import WattledgerError


class JobState(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not TABLE[self].then

    @property
    def holds_place(self) -> bool:
        """Whether an attempt of it is on a node."""
        return self in (JobState.RUNNING, JobState.STOPPING)


class AttemptState(enum.StrEnum):
    """How far an attempt is, or how it ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


class Stop(enum.StrEnum):
    """Why a running job was asked to leave its place; it decides what follows when it has left."""

    CANCEL = "cancel"
    PREEMPT = "preempt"
    TIME_LIMIT = "time limit"
    DEADLINE = "deadline"


@dataclass(frozen=True, kw_only=True)
class StateRule:
    """One row of the table: what the state means, who sets it, what may follow."""

    means: str
    set_by: str
    then: frozenset[JobState] = frozenset()


TABLE: dict[JobState, StateRule] = {
    JobState.QUEUED: StateRule(
        means="accepted, waits for its needs, its turn and a place; also between two attempts",
        set_by="submission, controller",
        then=frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED, JobState.SKIPPED}),
    ),
    JobState.RUNNING: StateRule(
        means="an attempt holds its place on one or more nodes",
        set_by="controller",
        then=frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED, JobState.STOPPING, JobState.CANCELLED}),
    ),
    JobState.STOPPING: StateRule(
        means="its attempt was asked to leave (cancelled, preempted, time limit, deadline) and has not left yet",
        set_by="user, controller",
        then=frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED, JobState.CANCELLED}),
    ),
    JobState.SUCCEEDED: StateRule(means="its last attempt ended with exit code 0", set_by="controller"),
    JobState.FAILED: StateRule(
        means="its last attempt failed and none is left, its time was up, or its controller is gone for good",
        set_by="controller, next command",
    ),
    JobState.CANCELLED: StateRule(
        means="a person or a stopped run ended it, or a job that it needs", set_by="user, controller"
    ),
    JobState.SKIPPED: StateRule(means="a job that it needs did not succeed, so it never ran", set_by="controller"),
}


class IllegalTransitionError(WattledgerError):
    """A state was asked for that cannot follow the present one: a bug, or two controllers on one ledger."""


def check_transition(job_id: str, now: JobState, then: JobState) -> None:
    """Pass silently when ``then`` may follow ``now``.

    Raises:
        IllegalTransitionError: it may not.
    """
    if then not in TABLE[now].then:
        allowed = ", ".join(sorted(TABLE[now].then)) or "nothing"
        raise IllegalTransitionError(f"job {job_id} is {now} and cannot become {then}; what may follow is {allowed}.")


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One try at a job.

    Attributes:
        number: 1 for the first.
        reason: why it ended so; ``None`` while it runs and when it succeeded.
        nodes: Ray node ids, of rank 0 first.
        accelerator: accelerator type of its devices.
        started_ns: when it was launched, ns since the epoch; ``ended_ns``: when it ended.
    """

    number: int
    state: AttemptState
    reason: str | None
    nodes: tuple[str, ...]
    accelerator: str | None
    started_ns: int
    ended_ns: int | None


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A job as the store holds it.

    Attributes:
        run_id: the submission it came with.
        sequence: its place in that submission, from 0.
        reason: why it is in its state, for people; ``None`` where the state says it all.
        user: who submitted it; ``None`` in ledgers from before it was noted.
        ready_ns: a queued job is not started before this, ns since the epoch; 0: at once.
        stop: why it was asked to leave, while it is ``stopping``; else ``None``.
        bound: its run ends with the process that submitted it, and has a controller of its own.
    """

    spec: JobSpec
    run_id: str
    sequence: int
    state: JobState
    reason: str | None
    submitted_ns: int
    attempts: tuple[AttemptRecord, ...] = ()
    user: str | None = None
    ready_ns: int = 0
    stop: Stop | None = None
    bound: bool = False

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.spec.job_id

    @cached_property
    def turn(self) -> Turn:
        """What counts of it in the line."""
        return turn_of(self.spec, submitted_ns=self.submitted_ns, sequence=self.sequence, user=self.user)
