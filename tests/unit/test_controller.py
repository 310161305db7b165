"""The controller over a cluster that behaves: what it starts, tries again, gives up and stops, and what it notes."""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.fake import FakeCluster
from orchestrator.lifecycle import JobState, Stop
from orchestrator.quotas import Quota
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import Store
from tests.queues import Queue, node, run_record, spec
from workers.contract import JobSpec
from workers.units import NS_PER_S

Make = Callable[..., Queue]
AT_ONCE = {"failures": 9, "backoff_s": 0.0}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes queues over one ledger."""
    made: list[Queue] = []

    def one(cluster: FakeCluster, *specs: JobSpec, **options: object) -> Queue:
        made.append(Queue(tmp_path / "state.db", cluster, *specs, **options))
        return made[-1]

    yield one
    for queue in made:
        queue.close()


def fails(attempts: int, exit_code: int | None = 1) -> Callable[[JobSpec, int], int | None]:
    """The first ``attempts`` fail, the next succeeds."""
    return lambda _, number: exit_code if number <= attempts else 0


class Vacated(FakeCluster):
    """Others hold every GPU when it is first looked at, and none any more when it is looked at again."""

    looks = 0

    def view(self) -> ClusterView:
        seen, self.looks = super().view(), self.looks + 1
        return seen if self.looks > 1 else ClusterView(nodes=tuple(replace(each, gpus_free=0) for each in seen.nodes))


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows any more: the ledger can be read and not written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFailures:
    def test_a_failed_attempt_fails_its_job_with_the_reason(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(1)), spec())
        queue.finish()
        assert (queue.job().state, queue.job().reason) == (JobState.FAILED, "exit code 1")
        assert queue.attempts() == [("failed", "exit code 1")]

    def test_a_job_is_tried_again_as_often_as_it_says_and_no_more(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(99)), spec(retry={"failures": 2, "backoff_s": 0.0}))
        queue.finish()
        assert queue.job().state is JobState.FAILED
        assert [state for state, _ in queue.attempts()] == ["failed"] * 3
        assert queue.started() == [("j", 1), ("j", 2), ("j", 3)]

    def test_the_last_try_may_succeed_and_leaves_no_reason(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(2)), spec(retry=AT_ONCE))
        queue.finish()
        assert (queue.job().state, queue.job().reason) == (JobState.SUCCEEDED, None)
        assert [state for state, _ in queue.attempts()] == ["failed", "failed", "succeeded"]

    def test_the_pause_before_each_further_try_is_twice_as_long(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(3)), spec(retry={"failures": 3, "backoff_s": 10.0}))
        queue.finish()
        assert [attempt.started_ns / NS_PER_S for attempt in queue.job().attempts] == [0, 11, 32, 73]

    def test_a_job_that_pauses_lets_another_have_its_place(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), outcome=lambda job, number: int(job.job_id == "j" and number == 1))
        queue = make(cluster, spec(retry={"failures": 1}), spec("k"))
        queue.finish()
        assert queue.started() == [("j", 1), ("k", 1), ("j", 2)]

    def test_a_lost_attempt_is_tried_again_at_once_then_after_a_pause_and_is_no_failure(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(2, None)), spec())
        queue.finish()
        assert queue.job().state is JobState.SUCCEEDED
        assert [state for state, _ in queue.attempts()] == ["lost", "lost", "succeeded"]
        assert [attempt.started_ns / NS_PER_S for attempt in queue.job().attempts] == [0, 1, 12]

    def test_one_that_is_lost_too_often_fails(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(9, None)), spec(retry={"losses": 1}))
        queue.finish()
        assert queue.job().reason == ("its worker was lost; lost or preempted 2 times, and retry.losses is 1")
        assert len(queue.attempts()) == 2

    def test_a_start_that_fails_is_a_loss(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), starts=lambda _, number: number > 2), spec())
        queue.finish()
        assert [state for state, _ in queue.attempts()] == ["lost", "lost", "succeeded"]

    def test_a_job_no_node_could_run_fails_when_patience_ends_and_holds_up_no_other(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("x", accelerators=["T4"]), spec("y"))
        queue.begin(patience_s=30.0)
        queue.step()
        assert queue.states() == {"x": "queued", "y": "running"}
        queue.finish(wait_s=10)
        assert queue.states() == {"x": "failed", "y": "succeeded"}
        assert queue.job("x").reason == "no node has a T4; this cluster has: H100 x1"
        assert 30 <= queue.now_s <= 51
        assert queue.attempts("x") == []

    def test_without_patience_it_waits_until_such_a_node_joins(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("x", accelerators=["T4"]))
        for _ in range(5):
            assert queue.step(3600.0)
        queue.cluster.join(node("b", "T4"))
        queue.finish()
        assert queue.states() == {"x": "succeeded"}

    def test_a_node_that_joins_in_time_ends_the_impatience(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), lasts_s=lambda *_: 100.0), spec("x", accelerators=["T4"]))
        queue.begin(patience_s=30.0)
        queue.step(20.0)
        queue.cluster.join(node("b", "T4"))
        queue.finish()
        assert queue.states() == {"x": "succeeded"}


class TestStops:
    def test_a_cancelled_job_leaves_its_place_without_a_checkpoint_and_the_next_gets_it(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: None, leaves_s=lambda _, saves: 30.0 if saves else 5.0)
        queue = make(cluster, spec("a"), spec("b"))
        queue.step()
        assert queue.store.request_stop("a", Stop.CANCEL, reason="not wanted", now_ns=0) is JobState.STOPPING
        queue.step()
        assert queue.states() == {"a": "stopping", "b": "queued"}
        queue.step(5.0)
        assert queue.states() == {"a": "cancelled", "b": "running"}
        assert (queue.now_s, queue.attempts("a")) == (5.0, [("cancelled", "not wanted")])

    def test_one_that_succeeds_while_it_is_asked_to_leave_has_succeeded(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), leaves_s=lambda *_: 99.0), spec())
        queue.step()
        queue.store.request_stop("j", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.finish()
        assert (queue.job().state, queue.job().reason, queue.job().stop) == (JobState.SUCCEEDED, None, None)

    def test_a_cancel_that_comes_with_the_end_of_a_failing_attempt_is_not_lost(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(9)), spec(retry=AT_ONCE))
        queue.step()
        queue.store.request_stop("j", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.cluster.clock.advance(1.0)
        queue.finish()
        assert (queue.job().state, queue.job().reason) == (JobState.CANCELLED, "not wanted")

    def test_a_preempted_job_saves_leaves_and_goes_on_later(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: 100.0, leaves_s=lambda _, saves: 20.0 if saves else 0.0)
        queue = make(cluster, spec("low"))
        queue.step()
        queue.store.submit(run_record("later"), [spec("high", schedule={"priority": 5})])
        queue.step()
        assert queue.states() == {"low": "stopping", "high": "queued"}
        queue.finish()
        assert queue.started() == [("low", 1), ("high", 1), ("low", 2)]
        assert [state for state, _ in queue.attempts("low")] == ["preempted", "succeeded"]
        assert queue.job("high").attempts[0].started_ns == 20 * NS_PER_S
        assert queue.now_s == 220

    def test_a_half_is_not_preempted_again_and_again_for_a_whole_gpu_that_it_does_not_free(self, make: Make) -> None:
        cluster = FakeCluster((node("a", gpus=2),), lasts_s=lambda job, _: 5.0 if job.job_id == "kept" else 50.0)
        halves = [spec(name, gpus=0.5, schedule={"preemptible": name != "kept"}) for name in ("x", "kept", "y")]
        queue = make(cluster, *halves)
        queue.step()
        queue.store.submit(run_record("late"), [spec("urgent", schedule={"priority": 5})])
        queue.finish(wait_s=1.0)
        assert set(queue.states().values()) == {"succeeded"}
        assert max(len(queue.attempts(name)) for name in ("x", "y")) <= 2

    def test_a_cancel_takes_the_place_of_a_preemption_and_waits_for_no_checkpoint(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: None, leaves_s=lambda _, saves: 20.0 if saves else 0.0)
        queue = make(cluster, spec())
        queue.step()
        queue.store.request_stop("j", Stop.PREEMPT, reason="room", now_ns=0)
        queue.step()
        queue.store.request_stop("j", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.finish()
        assert (queue.states(), queue.now_s) == ({"j": "cancelled"}, 0.0)

    def test_an_attempt_that_outlasts_its_time_limit_fails_its_job_whatever_retries_are_left(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: 1000.0)
        queue = make(cluster, spec(schedule={"time_limit_s": 60.0}, retry=AT_ONCE))
        queue.finish(wait_s=3600.0)
        reason = "attempt 1 ran for its time limit of 60 s"
        assert (queue.job().state, queue.job().reason, queue.now_s) == (JobState.FAILED, reason, 60.0)
        assert queue.attempts() == [("failed", reason)]

    def test_the_time_limit_is_of_each_attempt(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), outcome=fails(2), lasts_s=lambda *_: 50.0)
        queue = make(cluster, spec(schedule={"time_limit_s": 60.0}, retry=AT_ONCE))
        queue.finish(wait_s=3600.0)
        assert (queue.states(), queue.now_s) == ({"j": "succeeded"}, 150.0)

    def test_past_its_deadline_a_job_is_stopped_or_never_started(self, make: Make) -> None:
        schedule: dict[str, object] = {"deadline": "1970-01-01T00:01:00Z"}
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: 100.0)
        queue = make(cluster, spec("runs", schedule=schedule), spec("waits", schedule=schedule), spec("other"))
        queue.step(59.0)
        assert queue.states() == {"runs": "running", "waits": "queued", "other": "queued"}
        queue.step(3600.0)
        assert queue.now_s == 60.0
        queue.finish()
        assert queue.states() == {"runs": "failed", "waits": "failed", "other": "succeeded"}
        assert {queue.job(name).reason for name in ("runs", "waits")} == {
            "its deadline, 1970-01-01T00:01:00Z, has passed"
        }
        assert queue.started() == [("runs", 1), ("other", 1)]

    def test_a_run_that_others_finish_in_the_ledger_leaves_nothing_on_the_cluster(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), lasts_s=lambda *_: None), spec())
        queue.step()
        queue.store.finish("r", JobState.FAILED, reason="its process is gone", now_ns=5)
        queue.step()
        queue.finish()
        assert (queue.cluster.running, queue.job().reason) == ({}, "its process is gone")

    def test_one_that_holds_starts_nothing_until_it_does_not(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec())
        queue.controller.is_holding = True
        assert queue.step()
        assert queue.started() == []
        queue.controller.is_holding = False
        queue.finish()
        assert queue.states() == {"j": "succeeded"}


class Raced(Store):
    """The controller's connection; just before one of its changes, somebody else gets in with theirs.

    Attributes:
        others: what they do, once.
    """

    others: Callable[[], object] | None = None

    def together(self) -> contextlib.AbstractContextManager[None]:
        others, Raced.others = Raced.others, None
        if others is not None:
            others()
        return super().together()


class TestRaces:
    def test_a_cancel_between_the_look_and_the_note_of_a_failure_is_not_lost(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(9)), spec(retry=AT_ONCE))
        queue.begin(kind=Raced)
        queue.step()
        Raced.others = lambda: queue.store.request_stop("j", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.step(5.0)
        assert Raced.others is None
        assert (queue.job().state, queue.job().reason) == (JobState.CANCELLED, "not wanted")
        assert queue.attempts() == [("cancelled", "not wanted")]

    def test_a_job_that_is_cancelled_as_it_starts_does_not_and_the_others_do(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2),)), spec("a"), spec("b"))
        queue.begin(kind=Raced)
        Raced.others = lambda: queue.store.request_stop("a", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.step()
        assert queue.states() == {"a": "cancelled", "b": "running"}
        queue.finish()
        assert queue.started() == [("b", 1)]

    def test_a_job_that_is_submitted_while_others_are_decided_about_is_not_overlooked(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2),), lasts_s=lambda *_: None), spec("a"))
        queue.begin(kind=Raced)
        Raced.others = lambda: queue.store.submit(run_record("late"), [spec("b")])
        queue.step()
        queue.step()
        assert queue.states() == {"a": "running", "b": "running"}

    def test_room_that_others_leave_while_jobs_are_decided_about_is_not_overlooked(self, make: Make) -> None:
        queue = make(Vacated((node("a"),), lasts_s=lambda *_: None), spec())
        queue.step()
        assert queue.states() == {"j": "queued"}
        queue.step(wait_s=0.25)
        assert queue.states() == {"j": "running"}


class TestNeeds:
    def test_a_chain_runs_in_its_order(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=8),)), spec("c", needs=["b"]), spec("b", needs=["a"]), spec("a"))
        queue.finish()
        assert queue.started() == [("a", 1), ("b", 1), ("c", 1)]

    def test_what_needs_a_failed_job_is_skipped_down_to_the_last_with_the_reason(self, make: Make) -> None:
        queue = make(
            FakeCluster((node("a"),), outcome=fails(9)),
            spec("a"),
            spec("b", needs=["a"]),
            spec("c", needs=["b"]),
            spec("d", needs=["a", "c"]),
        )
        queue.finish()
        assert queue.states() == {"a": "failed", "b": "skipped", "c": "skipped", "d": "skipped"}
        assert [queue.job(name).reason for name in "bcd"] == [
            "needs a, which failed",
            "needs b, which was skipped",
            "needs a, which failed",
        ]

    def test_a_cancelled_parent_cancels_its_children(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("a"), spec("b", needs=["a"]), spec("c", needs=["b"]))
        queue.store.request_stop("a", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.finish()
        assert queue.states() == dict.fromkeys("abc", "cancelled")
        assert queue.job("c").reason == "needs b, which was cancelled"
        assert queue.started() == []

    def test_needs_of_an_earlier_run_count_whether_they_ended_before_or_after(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), lasts_s=lambda job, _: 5.0), spec("early"))
        queue.finish()
        queue.kill()
        queue.store.submit(run_record("r2"), [spec("late")])
        queue.store.submit(run_record("r3"), [spec("child", needs=["early", "late"])])
        queue.finish()
        assert queue.started() == [("early", 1), ("late", 1), ("child", 1)]

    def test_a_controller_of_one_run_waits_for_what_another_drives(self, make: Make) -> None:
        cluster = FakeCluster((node("a", gpus=2),))
        queue = make(cluster, spec("theirs"), run=run_record("other"))
        queue.store.submit(run_record("mine"), [spec("child", needs=["theirs"])])
        mine = queue.begin(run_ids=["mine"])
        assert mine.step(wait_s=1.0)
        assert queue.states() == {"theirs": "queued", "child": "queued"}
        number = queue.store.start_attempt("theirs", nodes=("elsewhere",), accelerator=None, now_ns=1)
        ended = {"state": "succeeded", "reason": None, "then": JobState.SUCCEEDED, "now_ns": 2}
        queue.store.end_attempt("theirs", number, **ended)
        queue.finish()
        assert queue.states() == {"theirs": "succeeded", "child": "succeeded"}


class TestSurvival:
    def test_attempts_go_on_without_a_controller_and_the_next_one_takes_them_up(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2),), lasts_s=lambda *_: 10.0), spec("a"), spec("b"), spec("c"))
        queue.step()
        queue.kill()
        assert queue.step()
        assert queue.states() == {"a": "running", "b": "running", "c": "queued"}
        queue.finish()
        assert queue.started() == [("a", 1), ("b", 1), ("c", 1)]
        assert queue.states() == dict.fromkeys("abc", "succeeded")

    def test_an_end_that_nobody_saw_is_noted_by_the_next_with_its_own_time(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), outcome=fails(1), lasts_s=lambda *_: 10.0), spec())
        queue.step()
        queue.cluster.close()
        queue.cluster.ended(timeout_s=100.0)
        queue.begin()
        queue.step()
        (attempt,) = queue.job().attempts
        assert (attempt.state, attempt.ended_ns) == ("failed", 10 * NS_PER_S)

    def test_killed_between_the_note_of_a_start_and_the_launch_the_attempt_is_lost_and_tried_again(
        self, make: Make
    ) -> None:
        queue = make(FakeCluster((node("a"),)), spec())
        queue.store.start_attempt("j", nodes=("id-a",), accelerator="H100", now_ns=0)
        queue.kill()
        queue.finish()
        assert queue.attempts() == [("lost", "it never started"), ("succeeded", None)]
        assert queue.started() == [("j", 2)]

    def test_killed_between_an_end_and_its_note_it_is_told_again(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec())
        queue.step()
        assert len(queue.cluster.ended(timeout_s=5.0)) == 1
        queue.kill()
        queue.finish()
        assert (queue.attempts(), queue.started()) == ([("succeeded", None)], [("j", 1)])

    def test_a_stop_that_was_asked_of_a_dead_controller_is_passed_on_by_the_next(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), lasts_s=lambda *_: None), spec())
        queue.step()
        queue.store.request_stop("j", Stop.CANCEL, reason="not wanted", now_ns=0)
        queue.kill()
        queue.finish()
        assert queue.states() == {"j": "cancelled"}

    def test_a_lost_node_sends_its_jobs_elsewhere(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"), node("b")), lasts_s=lambda *_: 10.0), spec("x"), spec("y"))
        queue.step()
        queue.cluster.lose("id-a")
        queue.finish()
        assert queue.states() == {"x": "succeeded", "y": "succeeded"}
        (moved,) = [name for name in "xy" if len(queue.attempts(name)) == 2]
        assert queue.attempts(moved) == [("lost", "node a was lost"), ("succeeded", None)]
        assert [attempt.nodes for attempt in queue.job(moved).attempts] == [("id-a",), ("id-b",)]

    def test_a_full_disk_starts_nothing_and_says_so_and_goes_on_once_there_is_room(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec())
        with full_disk():
            assert queue.step(1.0)
        assert queue.controller.trouble is not None
        assert re.fullmatch(r"the ledger cannot be written: .*\. Free disk space.*", queue.controller.trouble)
        assert (queue.started(), queue.states()) == ([], {"j": "queued"})
        queue.finish()
        assert (queue.controller.trouble, queue.states()) == (None, {"j": "succeeded"})

    def test_an_end_that_the_disk_refuses_is_kept_and_noted_later(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("a"), spec("b"))
        queue.step()
        with full_disk():
            for _ in range(3):
                assert queue.step(10.0)
        assert (queue.states(), queue.started()) == ({"a": "running", "b": "queued"}, [("a", 1)])
        queue.finish()
        assert queue.states() == {"a": "succeeded", "b": "succeeded"}
        assert queue.job("a").attempts[0].ended_ns == NS_PER_S

    def test_a_disk_that_stays_full_is_not_hurried(self, make: Make) -> None:
        cluster = FakeCluster((node("a"),), lasts_s=lambda *_: None)
        queue = make(cluster, spec(schedule={"time_limit_s": 5.0}))
        queue.step()
        with full_disk():
            for _ in range(4):
                queue.step(10.0)
        assert queue.now_s == 5 + 3 * 10
        queue.finish()
        assert queue.states() == {"j": "failed"}


class TestWork:
    def test_all_jobs_succeed_one_after_another_on_one_device(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), *(spec(name) for name in "abc"))
        assert queue.finish() == 4
        assert queue.states() == dict.fromkeys("abc", "succeeded")
        assert queue.started() == [("a", 1), ("b", 1), ("c", 1)]

    def test_a_ledger_without_jobs_is_done_and_one_that_gets_some_is_not(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)))
        assert not queue.step()
        queue.store.submit(run_record(), [spec()])
        assert queue.step()
        queue.finish()
        assert queue.states() == {"j": "succeeded"}

    def test_as_many_run_at_once_as_there_is_room_for(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2), node("b", "L4"))), *(spec(name) for name in "vwxyz"))
        queue.step()
        assert len(queue.cluster.running) == 3
        queue.finish()
        assert queue.now_s == 2
        assert queue.states() == dict.fromkeys("vwxyz", "succeeded")

    def test_memory_is_a_limit_as_gpus_are(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=4, memory_gb=16.0),)), *(spec(name, memory_gb=8.0) for name in "xyz"))
        queue.step()
        assert set(queue.cluster.running) == {"x", "y"}

    def test_a_gang_gets_all_its_nodes_at_once(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2), node("b", gpus=2))), spec(gpus=2, nodes=2))
        queue.finish()
        (attempt,) = queue.job().attempts
        assert set(attempt.nodes) == {"id-a", "id-b"}

    def test_halves_share_a_gpu(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), *(spec(name, gpus=0.5) for name in "xyz"))
        queue.step()
        assert len(queue.cluster.running) == 2

    def test_a_view_that_lags_is_waited_for(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),), lag_s=3.0), spec("a"), spec("b"))
        queue.finish(wait_s=0.5)
        assert [queue.job(name).attempts[0].started_ns / NS_PER_S for name in "ab"] == [0, 4]

    def test_higher_priority_starts_first_and_the_order_of_submission_decides_among_equals(self, make: Make) -> None:
        jobs = [
            spec("low", schedule={"priority": -1}),
            spec("first"),
            spec("second"),
            spec("high", schedule={"priority": 5}),
        ]
        queue = make(FakeCluster((node("a"),)), *jobs)
        queue.finish()
        assert [name for name, _ in queue.started()] == ["high", "first", "second", "low"]

    def test_who_used_less_goes_first(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("a1"), run=run_record("ada", user="ada"))
        queue.finish()
        queue.store.submit(run_record("ada2", at_ns=1, user="ada"), [spec("a2")])
        queue.store.submit(run_record("bob", at_ns=2, user="bob"), [spec("b1")])
        queue.finish()
        assert [name for name, _ in queue.started()] == ["a1", "b1", "a2"]

    def test_a_quota_that_is_set_meanwhile_holds_from_the_next_step(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=4),)), *map(spec, "abc"), run=run_record(user="ada"))
        queue.store.set_quota(Quota(scope="user", name="*", gpus=1, queued_jobs=None), now_ns=0)
        queue.step()
        assert len(queue.cluster.running) == 1
        queue.store.remove_quota("user", "*")
        queue.step()
        assert len(queue.cluster.running) == 3

    def test_each_attempt_is_noted_with_its_place_its_times_and_why_there(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", "L4"),)), spec())
        queue.finish()
        (attempt,) = queue.job().attempts
        assert (attempt.nodes, attempt.accelerator) == (("id-a",), "L4")
        assert (attempt.started_ns, attempt.ended_ns) == (0, NS_PER_S)
        (start,) = [what for what in queue.story() if what.startswith("attempt 1 starts on ")]
        assert start.startswith("attempt 1 starts on id-a (L4): ")

    def test_only_the_jobs_of_its_run_are_started(self, make: Make) -> None:
        queue = make(FakeCluster((node("a", gpus=2),)), spec("theirs"), run=run_record("other"))
        queue.store.submit(run_record("mine"), [spec("mine")])
        queue.begin(run_ids=["mine"])
        queue.finish()
        assert queue.started() == [("mine", 1)]
        assert queue.job("theirs").state is JobState.QUEUED

    def test_several_runs_of_one_submission_have_one_controller(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("a"), run=run_record("one", bound=True))
        queue.store.submit(run_record("two", bound=True), [spec("b", needs=["a"])])
        queue.store.submit(run_record("three", bound=True), [spec("c")])
        queue.begin(run_ids=["one", "two"])
        queue.finish()
        assert queue.states() == {"a": "succeeded", "b": "succeeded", "c": "queued"}

    def test_a_run_that_is_bound_to_its_process_is_left_to_that(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec("theirs"), run=run_record("bound", bound=True))
        assert not queue.step()
        queue.begin(run_ids=["bound"])
        queue.finish()
        assert queue.states() == {"theirs": "succeeded"}

    def test_what_it_saw_last_can_be_asked(self, make: Make) -> None:
        queue = make(FakeCluster((node("a"),)), spec())
        assert queue.controller.view is None
        queue.step()
        assert queue.controller.view is not None
        assert [one.name for one in queue.controller.view.nodes] == ["a"]


class Watched(FakeCluster):
    """Counts how often it is looked at."""

    looks = 0

    def view(self) -> ClusterView:
        self.looks += 1
        return super().view()


class TestLooks:
    """What a look costs on Ray is three questions to its head."""

    def test_while_jobs_wait_and_nothing_happens_the_cluster_is_looked_at_four_times_a_second(self, make: Make) -> None:
        cluster = Watched((node("a"),), lasts_s=lambda *_: None)
        queue = make(cluster, spec("runs"), spec("waits"))
        queue.step()
        queue.step()
        before = cluster.looks
        for _ in range(40):
            queue.step(wait_s=0.05)
        assert cluster.looks - before == 2 * 4

    def test_who_was_submitted_or_whose_place_was_asked_for_does_not_wait_for_the_next_look(self, make: Make) -> None:
        cluster = Watched((node("a", gpus=2),), lasts_s=lambda *_: None)
        queue = make(cluster, spec("runs", gpus=2), spec("waits", gpus=2))
        for _ in range(3):
            queue.step(wait_s=0.02)
        before = cluster.looks
        queue.store.submit(run_record("more"), [spec("urgent", schedule={"priority": 1}, gpus=2)])
        queue.step(wait_s=0.02)
        assert cluster.looks == before + 1
        assert queue.job("runs").state is JobState.STOPPING

    def test_a_place_that_shows_as_free_a_moment_after_its_end_is_given_in_the_next_step(self, make: Make) -> None:
        cluster = Watched((node("a"),), lasts_s=lambda spec, _: 1.0 if spec.job_id == "a" else None, lag_s=0.5)
        queue = make(cluster, spec("a"), spec("b"))
        while not queue.job("b").attempts:
            queue.step(wait_s=0.02)
        ended_ns, started_ns = queue.job("a").attempts[0].ended_ns, queue.job("b").attempts[0].started_ns
        assert started_ns - ended_ns <= 0.54 * NS_PER_S

    def test_room_that_others_leave_a_moment_after_a_submission_is_given_in_the_next_step(self, make: Make) -> None:
        queue = make(Vacated((node("a"),)))
        queue.store.submit(run_record("more"), [spec()])
        queue.step(wait_s=0.02)
        assert queue.job().state is JobState.QUEUED
        queue.step(wait_s=0.02)
        assert queue.job().state is JobState.RUNNING

    def test_a_pause_that_ends_is_seen_at_once(self, make: Make) -> None:
        cluster = Watched((node("a"),), outcome=fails(1))
        queue = make(cluster, spec(retry={"failures": 1, "backoff_s": 10.0}))
        queue.finish(wait_s=60.0)
        first, second = queue.job().attempts
        assert second.started_ns - first.ended_ns == 10 * NS_PER_S

    def test_whoever_asks_what_it_sees_is_told_without_another_look(self, make: Make) -> None:
        cluster = Watched((node("a"),), lasts_s=lambda *_: None)
        queue = make(cluster, spec("runs"), spec("waits"))
        queue.step()
        queue.step()
        before = cluster.looks
        assert queue.controller.look() == queue.controller.view
        assert cluster.looks == before

    def test_one_that_holds_does_not_look(self, make: Make) -> None:
        cluster = Watched((node("a"),))
        queue = make(cluster, spec())
        queue.controller.is_holding = True
        for _ in range(10):
            queue.step(wait_s=0.02)
        assert cluster.looks == 0
