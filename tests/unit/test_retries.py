"""What follows an attempt: the two budgets, the pause, and what a stop makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState, Stop
from orchestrator.scheduling.retries import FollowUp, backoff_s, follow_up
from tests.queues import spec
from workers.units import NS_PER_S

NOW_NS = 1_000 * NS_PER_S


@dataclass(frozen=True)
class End:
    exit_code: int | None
    reason: str | None = None


def job(*before: AttemptState, stop: Stop | None = None, **retry: Any) -> JobRecord:
    """A running job whose earlier attempts ended so."""
    states = (*before, AttemptState.RUNNING)
    return JobRecord(
        spec=spec(retry=retry),
        run_id="r",
        sequence=0,
        state=JobState.RUNNING if stop is None else JobState.STOPPING,
        reason=None if stop is None else f"asked: {stop}",
        submitted_ns=0,
        attempts=tuple(
            AttemptRecord(
                number=number, state=state, reason=None, nodes=("n",), accelerator=None, started_ns=0, ended_ns=None
            )
            for number, state in enumerate(states, 1)
        ),
        stop=stop,
    )


class TestFailures:
    def test_without_retries_the_first_failure_is_the_last(self) -> None:
        assert follow_up(job(), End(1, "it broke"), NOW_NS) == FollowUp(
            attempt_state=AttemptState.FAILED, then=JobState.FAILED, reason="it broke"
        )

    def test_bad_input_is_not_tried_again(self) -> None:
        assert follow_up(job(failures=5), End(2, "no such model"), NOW_NS).then is JobState.FAILED

    def test_a_failure_within_the_budget_waits_its_pause(self) -> None:
        assert follow_up(job(failures=1, backoff_s=3.0), End(1, "it broke"), NOW_NS) == FollowUp(
            attempt_state=AttemptState.FAILED,
            then=JobState.QUEUED,
            reason="it broke",
            ready_ns=NOW_NS + 3 * NS_PER_S,
        )

    def test_losses_and_preemptions_do_not_use_up_the_budget_of_failures(self) -> None:
        before = (AttemptState.LOST, AttemptState.PREEMPTED, AttemptState.LOST)
        assert follow_up(job(*before, failures=1), End(1), NOW_NS).then is JobState.QUEUED
        assert follow_up(job(*before, AttemptState.FAILED, failures=1), End(1), NOW_NS).then is JobState.FAILED

    def test_one_that_gives_no_reason_is_told_by_its_exit_code(self) -> None:
        assert follow_up(job(), End(137), NOW_NS).reason == "exit code 137"

    @pytest.mark.parametrize(("failures", "seconds"), [(1, 10.0), (2, 20.0), (3, 40.0), (9, 2560.0), (10, 3600.0)])
    def test_the_pause_doubles_up_to_an_hour(self, failures: int, seconds: float) -> None:
        assert backoff_s(job(backoff_s=10.0), failures) == seconds

    def test_a_pause_of_nothing_stays_nothing(self) -> None:
        assert backoff_s(job(backoff_s=0.0), 9) == 0.0


class TestLosses:
    def test_a_lost_attempt_is_tried_again_at_once(self) -> None:
        assert follow_up(job(), End(None, "node a was lost"), NOW_NS) == FollowUp(
            attempt_state=AttemptState.LOST, then=JobState.QUEUED, reason="node a was lost"
        )

    def test_one_that_is_lost_again_and_again_waits_longer_each_time(self) -> None:
        lost = AttemptState.LOST
        found = [follow_up(job(*[lost] * n, losses=9, backoff_s=3.0), End(None), NOW_NS).ready_ns for n in range(4)]
        assert found == [0, NOW_NS + 3 * NS_PER_S, NOW_NS + 6 * NS_PER_S, NOW_NS + 12 * NS_PER_S]

    def test_preemptions_neither_wait_nor_make_a_loss_wait(self) -> None:
        lost, preempted = AttemptState.LOST, AttemptState.PREEMPTED
        assert follow_up(job(preempted, preempted, losses=9), End(None), NOW_NS).ready_ns == 0
        assert follow_up(job(lost, lost, stop=Stop.PREEMPT, losses=9), End(75), NOW_NS).ready_ns == 0

    def test_failures_do_not_use_up_the_budget_of_losses(self) -> None:
        before = (AttemptState.FAILED,) * 3
        assert follow_up(job(*before, losses=1), End(None), NOW_NS).then is JobState.QUEUED
        found = follow_up(job(*before, AttemptState.PREEMPTED, losses=1), End(None), NOW_NS)
        assert found.then is JobState.FAILED
        assert found.reason == "it was lost; lost or preempted 2 times, and retry.losses is 1"

    def test_with_no_losses_allowed_the_first_is_the_last(self) -> None:
        assert follow_up(job(losses=0), End(None), NOW_NS).then is JobState.FAILED


class TestStops:
    @pytest.mark.parametrize("stop", Stop)
    def test_what_ended_well_succeeded_whatever_was_asked(self, stop: Stop) -> None:
        assert follow_up(job(stop=stop), End(0), NOW_NS) == FollowUp(
            attempt_state=AttemptState.SUCCEEDED, then=JobState.SUCCEEDED, reason=None
        )

    @pytest.mark.parametrize("exit_code", [None, 1, 2, 75, 130, 137])
    def test_a_cancelled_job_is_cancelled_however_it_left(self, exit_code: int | None) -> None:
        found = follow_up(job(stop=Stop.CANCEL, failures=9), End(exit_code, "left"), NOW_NS)
        assert found == FollowUp(attempt_state=AttemptState.CANCELLED, then=JobState.CANCELLED, reason="asked: cancel")

    @pytest.mark.parametrize("stop", [Stop.TIME_LIMIT, Stop.DEADLINE])
    @pytest.mark.parametrize("exit_code", [None, 1, 75, 130])
    def test_time_that_is_up_fails_it_with_that_reason(self, stop: Stop, exit_code: int | None) -> None:
        found = follow_up(job(stop=stop, failures=9, losses=9), End(exit_code, "left"), NOW_NS)
        assert found == FollowUp(attempt_state=AttemptState.FAILED, then=JobState.FAILED, reason=f"asked: {stop}")

    @pytest.mark.parametrize("exit_code", [None, 1, 75, 137])
    def test_a_preempted_job_goes_back_into_the_queue_however_it_left(self, exit_code: int | None) -> None:
        found = follow_up(job(stop=Stop.PREEMPT), End(exit_code, "left"), NOW_NS)
        assert found == FollowUp(attempt_state=AttemptState.PREEMPTED, then=JobState.QUEUED, reason="asked: preempt")

    def test_one_that_was_preempted_too_often_fails(self) -> None:
        twice = job(AttemptState.PREEMPTED, AttemptState.LOST, stop=Stop.PREEMPT, losses=2)
        found = follow_up(twice, End(75), NOW_NS)
        assert (found.attempt_state, found.then) == (AttemptState.PREEMPTED, JobState.FAILED)
        assert found.reason == "asked: preempt; lost or preempted 3 times, and retry.losses is 2"
        assert follow_up(replace(twice, spec=spec(retry={"losses": 3})), End(75), NOW_NS).then is JobState.QUEUED
