"""What needs make of a job that waits for them."""

from __future__ import annotations

import pytest

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.scheduling.needs import InVain, in_vain, waits_for
from tests.queues import spec


def job(*needs: str) -> JobRecord:
    return JobRecord(
        spec=spec("child", needs=needs), run_id="r", sequence=0, state=JobState.QUEUED, reason=None, submitted_ns=0
    )


@pytest.mark.parametrize(
    ("state", "then", "word"),
    [
        (JobState.FAILED, JobState.SKIPPED, "failed"),
        (JobState.SKIPPED, JobState.SKIPPED, "was skipped"),
        (JobState.CANCELLED, JobState.CANCELLED, "was cancelled"),
    ],
)
def test_one_that_cannot_be_met_any_more_ends_the_job_with_its_name(state: JobState, then: JobState, word: str) -> None:
    states = {"a": JobState.SUCCEEDED, "b": state, "c": JobState.RUNNING}
    assert in_vain(job("a", "b", "c"), states) == InVain(then=then, reason=f"needs b, which {word}")


def test_one_that_is_nowhere_is_never_met() -> None:
    assert in_vain(job("ghost"), {}) == InVain(then=JobState.SKIPPED, reason="needs ghost, which is not in this ledger")
    assert waits_for(job("ghost"), {}) == "waits for ghost, which is not in this ledger"


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_final])
def test_while_one_may_still_succeed_the_job_waits_and_says_for_what(state: JobState) -> None:
    states = {"a": JobState.SUCCEEDED, "b": state}
    assert in_vain(job("a", "b"), states) is None
    said = waits_for(job("a", "b"), states)
    assert said is not None
    assert said.startswith("waits for b, which ")


def test_several_are_counted() -> None:
    states = {"a": JobState.RUNNING, "b": JobState.QUEUED, "c": JobState.QUEUED}
    assert waits_for(job("a", "b", "c"), states) == "waits for a, which runs, and for 2 more"


@pytest.mark.parametrize("needs", [(), ("a",), ("a", "b")])
def test_when_all_have_succeeded_or_there_are_none_it_may_go(needs: tuple[str, ...]) -> None:
    states = dict.fromkeys("ab", JobState.SUCCEEDED)
    assert (in_vain(job(*needs), states), waits_for(job(*needs), states)) == (None, None)
