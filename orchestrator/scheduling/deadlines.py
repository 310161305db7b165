"""When a job's time is up: the time limit of its attempt, its own deadline. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState, Stop
from workers.units import NS_PER_S

_EPOCH = datetime.datetime.fromtimestamp(0, tz=datetime.UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeUp:
    """A limit that a job keeps: when, what it is then asked, and what people are told.

    Attributes:
        time_ns: ns since the epoch; ``reason``: told once that has come.
    """

    time_ns: int
    stop: Stop
    reason: str


def time_up(job: JobRecord) -> TimeUp | None:
    """The limit that ``job`` reaches first, as it is now; ``None`` when it has none, or is leaving already."""
    if job.state.is_final or job.state is JobState.STOPPING:
        return None
    limits = [limit for limit in (_deadline(job), _time_limit(job)) if limit is not None]
    return min(limits, key=lambda limit: limit.time_ns, default=None)


def deadline_ns(deadline: str) -> int:
    """A deadline as manifests write it (RFC 3339, to the second), in ns since the epoch."""
    return round((datetime.datetime.fromisoformat(deadline) - _EPOCH).total_seconds()) * NS_PER_S


def _deadline(job: JobRecord) -> TimeUp | None:
    deadline = job.spec.schedule.deadline
    if deadline is None:
        return None
    return TimeUp(time_ns=deadline_ns(deadline), stop=Stop.DEADLINE, reason=f"its deadline, {deadline}, has passed")


def _time_limit(job: JobRecord) -> TimeUp | None:
    limit_s = job.spec.schedule.time_limit_s
    if limit_s is None or job.state is not JobState.RUNNING:
        return None
    last = job.attempts[-1]
    return TimeUp(
        time_ns=last.started_ns + round(limit_s * NS_PER_S),
        stop=Stop.TIME_LIMIT,
        reason=f"attempt {last.number} ran for its time limit of {limit_s:g} s",
    )
