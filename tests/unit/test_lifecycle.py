"""The state table: no way out of a final state, every state reached, and a refusal that says what may follow."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.lifecycle import TABLE, IllegalTransitionError, JobState, check_transition

FINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED}
HOLDING = {JobState.RUNNING, JobState.STOPPING}
PAIRS = list(itertools.product(JobState, JobState))


def test_an_illegal_transition_says_what_may_follow() -> None:
    with pytest.raises(IllegalTransitionError) as refused:
        check_transition("j", JobState.QUEUED, JobState.SUCCEEDED)
    assert str(refused.value) == (
        "job j is queued and cannot become succeeded; what may follow is cancelled, failed, running, skipped."
    )


def test_a_final_state_is_told_to_have_no_future() -> None:
    with pytest.raises(IllegalTransitionError, match="cannot become queued; what may follow is nothing"):
        check_transition("j", JobState.CANCELLED, JobState.QUEUED)


@pytest.mark.parametrize(("now", "then"), [pair for pair in PAIRS if pair[1] not in TABLE[pair[0]].then])
def test_what_the_table_does_not_allow_is_refused(now: JobState, then: JobState) -> None:
    with pytest.raises(IllegalTransitionError, match=f"is {now} and cannot become {then}"):
        check_transition("j", now, then)


@pytest.mark.parametrize(("now", "then"), [pair for pair in PAIRS if pair[1] in TABLE[pair[0]].then])
def test_what_the_table_allows_passes(now: JobState, then: JobState) -> None:
    check_transition("j", now, then)


def test_the_states_nothing_follows_are_the_final_ones() -> None:
    assert {state for state in JobState if state.is_final} == FINAL
    assert {state for state in JobState if not TABLE[state].then} == FINAL


def test_every_state_is_in_the_table_and_can_be_reached_from_the_queue() -> None:
    assert set(TABLE) == set(JobState)
    reached, fresh = {JobState.QUEUED}, {JobState.QUEUED}
    while fresh:
        fresh = set().union(*(TABLE[state].then for state in fresh)) - reached
        reached |= fresh
    assert reached == set(JobState)


def test_a_job_that_holds_a_place_can_leave_it_only_with_the_end_of_its_attempt() -> None:
    assert {state for state in JobState if state.holds_place} == HOLDING
    assert [state for state in JobState if state.is_final and state.holds_place] == []
    assert [state for state in HOLDING if JobState.SKIPPED in TABLE[state].then] == []


def test_a_place_is_had_from_the_queue_alone() -> None:
    assert [state for state in JobState if JobState.RUNNING in TABLE[state].then] == [JobState.QUEUED]


def test_no_state_follows_itself() -> None:
    assert [state for state in JobState if state in TABLE[state].then] == []


def test_every_row_says_what_it_means_and_who_sets_it() -> None:
    assert [state for state in JobState if not (TABLE[state].means and TABLE[state].set_by)] == []
