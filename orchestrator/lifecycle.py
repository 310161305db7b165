"""The job state table: every state, who sets it, and what may follow. Pure: the store and the controller obey it.

A state says where a job is; *why* it is there is kept apart, in ``reason``, for people to read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from workers.contract import JobSpec
from workers.errors import WattledgerError


class JobState(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not TABLE[self].then


@dataclass(frozen=True, kw_only=True)
class StateRule:
    """One row of the table: what the state means, who sets it, what may follow."""

    means: str
    set_by: str
    then: frozenset[JobState] = frozenset()


TABLE: dict[JobState, StateRule] = {
    JobState.QUEUED: StateRule(
        means="accepted, waits for a device; also after a failed attempt that is tried again",
        set_by="submission, controller",
        then=frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    ),
    JobState.RUNNING: StateRule(
        means="an attempt holds a place on a node",
        set_by="controller",
        then=frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    ),
    JobState.SUCCEEDED: StateRule(means="its last attempt ended with exit code 0", set_by="controller"),
    JobState.FAILED: StateRule(
        means="its last attempt failed and none is left, it could never run, or its controller is gone",
        set_by="controller, next command",
    ),
    JobState.CANCELLED: StateRule(means="a person or a stopped run ended it", set_by="user, controller"),
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
        state: ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        reason: why it ended so; ``None`` while it runs and when it succeeded.
        node: Ray node id.
        accelerator: accelerator type of its devices.
        started_ns: when it was launched, ns since the epoch; ``ended_ns``: when it was seen to end.
    """

    number: int
    state: JobState
    reason: str | None
    node: str
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
    """

    spec: JobSpec
    run_id: str
    sequence: int
    state: JobState
    reason: str | None
    submitted_ns: int
    attempts: tuple[AttemptRecord, ...] = ()
    user: str | None = None

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.spec.job_id
