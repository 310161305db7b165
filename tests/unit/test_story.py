"""One job explained: what it waits for in which order, what happened to it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.queue_view import Explanation, explain
from orchestrator.quotas import Quota
from tests.unit.ledger import at
from tests.unit.queue_ledger import QueueLedger, node
from workers.errors import UnknownNameError

H100 = node("node-1", "H100")
FAILED = (AttemptState.FAILED, JobState.FAILED)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[QueueLedger]:
    made = QueueLedger(tmp_path)
    yield made
    made.store.close()


def told(ledger: QueueLedger, job_id: str = "j", *, at_s: float = 100) -> Explanation:
    return explain(ledger.home, ledger.store, job_id, now_ns=at(at_s))


class TestEndedBadly:
    def test_an_unknown_job_is_refused(self, ledger: QueueLedger) -> None:
        with pytest.raises(UnknownNameError):
            told(ledger)

    def test_a_failure_shows_the_end_of_its_log_and_where_to_read_on(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        ledger.start("j", H100)
        ledger.write_log("j", 1, "step 1\n\nRuntimeError: no\n")
        ledger.write_log("j", 1, "of rank 1\n", rank=1)
        ledger.end("j", 1, *FAILED, reason="exit code 1")
        found = told(ledger)
        assert found.last_lines == ("step 1", "RuntimeError: no"), "of rank 0, which tells the reason"
        assert found.remedy == "read its log (wattledger logs j), mend what it names, and submit the manifest again"
        assert [(log.attempt, log.rank) for log in found.logs] == [(1, 0), (1, 1)]
        assert (found.starts_after, found.bearing, found.controller) == ((), (), None)

    def test_a_job_lost_too_often_is_told_which_budget_to_raise(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j", retry={"losses": 0})
        ledger.start("j", H100)
        ledger.end("j", 1, AttemptState.LOST, JobState.FAILED, reason="its node is gone")
        assert "retry.losses allows (0); raise it" in str(told(ledger).remedy)

    def test_a_job_whose_time_was_up_is_told_which_limit_to_raise(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j", schedule={"time_limit_s": 60})
        ledger.start("j", H100)
        assert told(ledger, at_s=10).bearing == ("time: must have ended by 2024-01-01 12:01:00Z",)
        ledger.end("j", 1, *FAILED, reason="attempt 1 ran for its time limit of 60 s", at_s=61)
        assert told(ledger).remedy == "its time was up; raise schedule.time_limit_s, and submit the manifest again"
        deadline = "2024-01-01T13:00:00Z"
        ledger.submit("s", "k", schedule={"deadline": deadline})
        reason = f"its deadline, {deadline}, has passed"
        ledger.store.set_state("k", JobState.FAILED, reason=reason, now_ns=at(3601))
        assert "raise schedule.deadline" in str(told(ledger, "k").remedy)

    def test_a_job_that_never_ran_is_told_to_mend_the_reason(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        ledger.store.set_state("j", JobState.FAILED, reason="no node has a B200", now_ns=at(1))
        assert told(ledger).remedy == "it never ran; mend what the reason names, and submit the manifest again"

    def test_a_skipped_job_points_at_the_need_that_failed(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "need")
        ledger.submit("s", "j", needs=["need"])
        ledger.store.set_state("need", JobState.FAILED, reason="x", now_ns=at(1))
        ledger.store.set_state("j", JobState.SKIPPED, reason="needs need, which failed", now_ns=at(2))
        found = told(ledger)
        assert [(need.job_id, need.state, need.reason) for need in found.needs] == [("need", JobState.FAILED, "x")]
        assert str(found.remedy).startswith("see what became of need (wattledger explain need)")

    @pytest.mark.parametrize(
        ("state", "remedy"),
        [(JobState.CANCELLED, "to run it after all, submit the manifest again"), (JobState.SUCCEEDED, None)],
    )
    def test_what_was_wished_needs_no_mending(self, ledger: QueueLedger, state: JobState, remedy: str | None) -> None:
        ledger.submit("r", "j")
        ledger.start("j", H100)
        ledger.end("j", 1, AttemptState(state), state)
        assert told(ledger).remedy == remedy


class TestWaiting:
    def test_first_a_controller_then_needs_then_the_pause_then_a_place(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "need")
        ledger.submit("s", "j", needs=["need"], retry={"failures": 3})
        ledger.beat(H100, at_s=0)
        ledger.start("need", H100)
        ledger.start("j", H100, at_s=1)
        ledger.end("j", 1, AttemptState.FAILED, JobState.QUEUED, reason="x", at_s=2, ready_s=160)
        assert told(ledger).starts_after == (
            "a controller; start one: wattledger up",
            "need to succeed; it is running",
            "the end of its pause at 2024-01-01 12:02:40Z, in 60 s",
        )

    def test_a_place_is_told_with_who_holds_it_and_until_when(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "holder", "other", resources={"accelerators": ["H100"]})
        ledger.submit("s", "on-another-type", resources={"accelerators": ["T4"]})
        ledger.submit("t", "j", resources={"accelerators": ["H100"]})
        ledger.beat(H100, node("node-2", "T4"), at_s=100)
        ledger.start("holder", H100)
        ledger.start("on-another-type", node("node-2", "T4"))
        ledger.progress("holder", 1, 50, 100, at_s=100)
        found = told(ledger)
        assert found.starts_after[1:] == ("holder holds H100 on node-1; ends in 100 s",)
        ledger.progress("holder", 1, 0, 100, at_s=100)
        assert told(ledger).starts_after[1:] == ("holder holds H100 on node-1; when it ends is not known yet",)
        assert told(ledger, "holder").starts_after == ()

    def test_quotas_and_shares_that_bear_on_it_are_told_in_figures(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "mine", "j", accounting={"project": "moon"})
        ledger.submit("s", "theirs", user="bob")
        ledger.beat(H100, at_s=3600)
        ledger.start("mine", H100)
        ledger.store.set_quota(Quota(scope="user", name="ada", gpus=4, queued_jobs=None), now_ns=1)
        ledger.store.set_quota(Quota(scope="project", name="*", gpus=None, queued_jobs=9), now_ns=1)
        alone = told(ledger, at_s=3600)
        assert alone.bearing == ("quota of user ada: 1 of 4 GPUs held", "quota of project moon: 1 of 9 jobs queued")
        ledger.start("theirs", H100, at_s=1800)
        share = told(ledger, at_s=3600).bearing[-1]
        assert share.startswith("fair share: ada had 0.98")
        assert share.endswith("1 of 1 other users had less, and come first at equal priority")

    @pytest.mark.parametrize(
        ("resources", "text"),
        [
            ({}, "1 GPU (any type), 1 CPU core"),
            ({"gpus": 0, "cpus": 2.0, "memory_gb": 4.0}, "no GPU, 2 CPU cores, 4 GB of memory"),
            ({"gpus": 0.5, "accelerators": ["H100", "A100-80GB"]}, "0.5 GPUs (H100, else A100-80GB), 1 CPU core"),
            (
                {"gpus": 4, "nodes": 2, "labels": {"zone": "a"}},
                "2 nodes at once, 4 GPUs on each (any type), 1 CPU core on each, label zone=a",
            ),
        ],
    )
    def test_what_it_asks_for_is_told_in_words(self, ledger: QueueLedger, resources: dict[str, Any], text: str) -> None:
        ledger.submit("r", "j", resources=resources)
        assert told(ledger).asks == text


def test_the_story_names_nodes_and_says_nothing_twice(ledger: QueueLedger) -> None:
    ledger.submit("r", "j")
    ledger.beat(H100, at_s=100)
    ledger.start("j", H100, at_s=0, why="node-1 has a free H100")
    ledger.end("j", 1, AttemptState.PREEMPTED, JobState.QUEUED, reason="for k", at_s=10)
    ledger.start("j", H100, at_s=20, why="node-1 has a free H100")
    ledger.end("j", 2, AttemptState.SUCCEEDED, JobState.SUCCEEDED, at_s=30)
    assert told(ledger).story == (
        (at(-60), "submitted with r"),
        (at(0), "attempt 1 starts on node-1 (H100): node-1 has a free H100"),
        (at(10), "attempt 1 preempted: for k"),
        (at(10), "running -> queued"),
        (at(20), "attempt 2 starts on node-1 (H100): node-1 has a free H100"),
        (at(30), "attempt 2 succeeded"),
        (at(30), "running -> succeeded"),
    )


def test_as_json_it_is_the_job_with_its_story(ledger: QueueLedger) -> None:
    ledger.submit("r", "j")
    found = told(ledger).as_dict()
    assert found["job_id"] == "j"
    assert found["story"] == [{"time_ns": at(-60), "what": "submitted with r"}]
    assert found["starts_after"] == ["a controller; start one: wattledger up"]
