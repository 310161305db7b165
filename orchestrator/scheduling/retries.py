"""What follows when an attempt has ended. Pure: a job, how its attempt ended and the time in, what is next out.

Two budgets, since they say different things: an attempt that *failed* says something of the job, one that was *lost*
with its node, or *preempted*, does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.lifecycle import AttemptState, JobRecord, JobState, Stop
from workers.errors import InputError
from workers.units import NS_PER_S

LONGEST_BACKOFF_S = 3600.0


class End(Protocol):
    """How an attempt ended; ``exit_code`` is ``None`` for one that was lost."""

    @property
    def exit_code(self) -> int | None: ...  # noqa: D102

    @property
    def reason(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class FollowUp:
    """What an attempt's end makes of it and of its job.

    Attributes:
        reason: for people, of both; ``None`` when it succeeded.
        ready_ns: a job that is queued again is not started before, ns since the epoch; 0: at once.
    """

    attempt_state: AttemptState
    then: JobState
    reason: str | None
    ready_ns: int = 0


_FINAL_STOPS = {
    Stop.CANCEL: (AttemptState.CANCELLED, JobState.CANCELLED),
    Stop.TIME_LIMIT: (AttemptState.FAILED, JobState.FAILED),
    Stop.DEADLINE: (AttemptState.FAILED, JobState.FAILED),
}
"""Stops that are the end of a job, whatever its attempt ended with; but for one that had just done all its work."""


def follow_up(job: JobRecord, ended: End, now_ns: int) -> FollowUp:
    """What becomes of ``job``, whose last attempt ended so."""
    if ended.exit_code == 0:
        return FollowUp(attempt_state=AttemptState.SUCCEEDED, then=JobState.SUCCEEDED, reason=None)
    if job.stop in _FINAL_STOPS:
        attempt_state, then = _FINAL_STOPS[job.stop]
        return FollowUp(attempt_state=attempt_state, then=then, reason=job.reason)
    if job.stop is Stop.PREEMPT:
        return _after_loss(job, AttemptState.PREEMPTED, job.reason or "it was preempted", now_ns)
    reason = ended.reason or (f"exit code {ended.exit_code}" if ended.exit_code is not None else "it was lost")
    if ended.exit_code is None:
        return _after_loss(job, AttemptState.LOST, reason, now_ns)
    return _after_failure(job, ended.exit_code, reason, now_ns)


def backoff_s(job: JobRecord, failures: int) -> float:
    """Seconds before a job that failed ``failures`` times is tried again: doubled each time, an hour at most."""
    return min(job.spec.retry.backoff_s * 2.0 ** (failures - 1), LONGEST_BACKOFF_S)


def _after_loss(job: JobRecord, state: AttemptState, reason: str, now_ns: int) -> FollowUp:
    """The job goes back into the queue, the first time without a pause: it did nothing wrong.

    From the second loss on it pauses: a node that comes and goes would use up the budget within seconds. A job that is
    preempted waits for a place anyway.
    """
    losses = 1 + _count(job, AttemptState.LOST, AttemptState.PREEMPTED)
    if losses <= job.spec.retry.losses:
        lost_before = _count(job, AttemptState.LOST) if state is AttemptState.LOST else 0
        ready_ns = now_ns + round(backoff_s(job, lost_before) * NS_PER_S) if lost_before else 0
        return FollowUp(attempt_state=state, then=JobState.QUEUED, reason=reason, ready_ns=ready_ns)
    told = f"{reason}; lost or preempted {losses} times, and retry.losses is {job.spec.retry.losses}"
    return FollowUp(attempt_state=state, then=JobState.FAILED, reason=told)


def _after_failure(job: JobRecord, exit_code: int, reason: str, now_ns: int) -> FollowUp:
    failures = 1 + _count(job, AttemptState.FAILED)
    # Bad input is as bad the next time.
    if exit_code == InputError.exit_code or failures > job.spec.retry.failures:
        return FollowUp(attempt_state=AttemptState.FAILED, then=JobState.FAILED, reason=reason)
    return FollowUp(
        attempt_state=AttemptState.FAILED,
        then=JobState.QUEUED,
        reason=reason,
        ready_ns=now_ns + round(backoff_s(job, failures) * NS_PER_S),
    )


def _count(job: JobRecord, *states: AttemptState) -> int:
    return sum(attempt.state in states for attempt in job.attempts)
