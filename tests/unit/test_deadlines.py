"""When a job's time is up."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState, Stop
from orchestrator.scheduling.deadlines import TimeUp, deadline_ns, time_up
from tests.queues import spec
from workers.units import NS_PER_S


def job(state: JobState, *started_s: int, **schedule: Any) -> JobRecord:
    return JobRecord(
        spec=spec(schedule=schedule),
        run_id="r",
        sequence=0,
        state=state,
        reason=None,
        submitted_ns=0,
        attempts=tuple(
            AttemptRecord(
                number=number,
                state=AttemptState.RUNNING,
                reason=None,
                nodes=("n",),
                accelerator=None,
                started_ns=at_s * NS_PER_S,
                ended_ns=None,
            )
            for number, at_s in enumerate(started_s, 1)
        ),
    )


@pytest.mark.parametrize("state", [JobState.STOPPING, JobState.SUCCEEDED, JobState.SKIPPED])
def test_a_job_that_is_leaving_or_has_ended_has_no_limit(state: JobState) -> None:
    assert time_up(job(state, 5, time_limit_s=1.0, deadline="1970-01-01T00:00:01Z")) is None


def test_a_job_without_limits_has_none() -> None:
    assert time_up(job(JobState.RUNNING, 5)) is None


def test_the_time_limit_counts_from_the_start_of_the_last_attempt() -> None:
    assert time_up(job(JobState.RUNNING, 5, 100, time_limit_s=1.5)) == TimeUp(
        time_ns=101_500_000_000, stop=Stop.TIME_LIMIT, reason="attempt 2 ran for its time limit of 1.5 s"
    )
    assert time_up(job(JobState.QUEUED, 5, time_limit_s=1.5)) is None


def test_of_two_limits_the_first_counts() -> None:
    late = job(JobState.RUNNING, 0, time_limit_s=60.0, deadline="1970-01-01T00:02:00Z")
    soon = job(JobState.RUNNING, 0, time_limit_s=600.0, deadline="1970-01-01T00:02:00Z")
    found = time_up(late), time_up(soon)
    assert [limit.stop for limit in found if limit] == [Stop.TIME_LIMIT, Stop.DEADLINE]


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        ("1970-01-01T00:01Z", 60),
        ("1970-01-01T02:00:00+02:00", 0),
        ("2026-12-01T18:00:00-05:00", 1_796_166_000),
    ],
)
def test_a_deadline_is_the_same_moment_everywhere(deadline: str, seconds: int) -> None:
    assert deadline_ns(deadline) == seconds * NS_PER_S
