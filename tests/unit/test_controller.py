"""The controller over a cluster that behaves: what it starts, tries again, gives up and stops, and what it notes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.fake import FakeCluster
from orchestrator.controller import CANCELLED, Controller
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.errors import InputError

Outcome = Callable[[JobSpec, int], int | None]


class Bench:
    """A store, a fake cluster and a controller over both, with a clock that ticks once at each look."""

    def __init__(self, store: Store, cluster: FakeCluster, *specs: JobSpec, run_id: str = "r") -> None:
        self.store, self.cluster, self.run_id = store, cluster, run_id
        store.submit(
            RunRecord(run_id=run_id, name="n", manifest="", submitted_ns=0, host="h", pid=1),
            specs,
        )
        ticks = itertools.count(1)
        self.controller = Controller(store, cluster, run_id=run_id, clock_ns=lambda: next(ticks))

    def step(self) -> bool:
        return self.controller.step(wait_s=0)

    def finish(self) -> int:
        """Step until nothing is left; gives how many steps that took."""
        steps = 1
        while self.step():
            steps += 1
            assert steps < 100, "the loop does not end"
        return steps

    def states(self) -> dict[str, str]:
        return {job.job_id: job.state.value for job in self.store.jobs(run_id=self.run_id)}

    def job(self, job_id: str = "j") -> JobRecord:
        return self.store.job(job_id)

    def started(self) -> list[tuple[str, int]]:
        return [(launched.spec.job_id, launched.attempt) for launched in self.cluster.history]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(tmp_path / "state.db")) as opened:
        yield opened


def node(name: str, accelerator: str | None = "H100", *, gpus: int = 1, memory_gb: float | None = None) -> NodeView:
    return NodeView(
        node_id=f"id-{name}",
        name=name,
        accelerator=accelerator,
        simulated=True,
        gpus_total=gpus,
        gpus_free=gpus,
        cpus_total=8.0,
        cpus_free=8.0,
        memory_free_gb=memory_gb,
        memory_total_gb=memory_gb,
    )


def spec(job_id: str = "j", *, failures: int = 0, priority: int = 0, **resources: object) -> JobSpec:
    return JobSpec.model_validate(
        {
            "job_id": job_id,
            "task": "digits",
            "model": "tiny/vit",
            "resources": resources,
            "retry": {"failures": failures},
            "schedule": {"priority": priority},
        }
    )


def fails(attempts: int, exit_code: int | None = 1) -> Outcome:
    """The first ``attempts`` fail, the next succeeds."""
    return lambda _, number: exit_code if number <= attempts else 0


class TestFailures:
    def test_a_failed_attempt_fails_its_job_with_the_reason(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),), outcome=fails(1)), spec())
        bench.finish()
        job = bench.job()
        assert (job.state, job.reason) == (JobState.FAILED, "exit code 1")
        assert [(a.state, a.reason) for a in job.attempts] == [(JobState.FAILED, "exit code 1")]

    def test_a_job_is_tried_again_as_often_as_it_says_and_no_more(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),), outcome=fails(99)), spec(failures=2))
        bench.finish()
        assert bench.job().state is JobState.FAILED
        assert [a.state for a in bench.job().attempts] == [JobState.FAILED] * 3
        assert bench.started() == [("j", 1), ("j", 2), ("j", 3)]

    def test_the_last_try_may_succeed_and_leaves_no_reason(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),), outcome=fails(2)), spec(failures=2))
        bench.finish()
        assert (bench.job().state, bench.job().reason) == (JobState.SUCCEEDED, None)
        assert [a.state.value for a in bench.job().attempts] == ["failed", "failed", "succeeded"]

    def test_between_two_tries_the_job_is_queued_and_says_why(self, store: Store) -> None:
        cluster = FakeCluster((node("a"),), outcome=fails(1))
        bench = Bench(store, cluster, spec("j", failures=1), spec("urgent", priority=9))
        bench.step()
        assert bench.states() == {"j": "queued", "urgent": "running"}
        bench.step()
        bench.step()
        assert (bench.job().state, bench.job().attempts[0].reason) == (JobState.RUNNING, "exit code 1")
        assert "running -> queued: exit code 1" in [what for _, what in store.events("j")]

    def test_a_lost_worker_counts_as_a_failure(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),), outcome=fails(1, None)), spec(failures=1), spec("k"))
        bench.finish()
        assert bench.states() == {"j": "succeeded", "k": "failed"}
        assert bench.job("k").reason == "its worker was lost"
        assert bench.job("j").attempts[0].reason == "its worker was lost"

    def test_a_job_no_node_could_run_fails_at_once_with_the_reason_and_holds_up_no_other(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),)), spec("x", accelerators=["T4"]), spec("y"))
        bench.step()
        assert bench.states() == {"x": "failed", "y": "running"}
        assert bench.job("x").reason == "no node has a T4; this cluster has: H100 x1"
        assert bench.job("x").attempts == ()
        bench.finish()
        assert bench.states() == {"x": "failed", "y": "succeeded"}

    def test_a_run_of_impossible_jobs_ends(self, store: Store) -> None:
        bench = Bench(store, FakeCluster(()), spec("x"), spec("y"))
        assert bench.finish() == 2
        assert {bench.job(name).reason for name in "xy"} == {"no node of the cluster answers"}


class TestCancel:
    def test_in_the_middle_what_runs_and_what_waits_both_end_cancelled(self, store: Store) -> None:
        cluster = FakeCluster((node("a"),), lasts=lambda *_: 99)
        bench = Bench(store, cluster, spec("a"), spec("b"))
        bench.step()
        assert bench.states() == {"a": "running", "b": "queued"}
        bench.controller.cancel()
        assert bench.states() == {"a": "cancelled", "b": "cancelled"}
        assert {bench.job(name).reason for name in "ab"} == {CANCELLED}
        assert [(a.state, a.reason) for a in bench.job("a").attempts] == [(JobState.CANCELLED, CANCELLED)]
        assert cluster.running == {}
        assert not bench.step()

    def test_twice_is_harmless_and_keeps_the_first_reason(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),)), spec("a"), spec("b"))
        bench.step()
        bench.controller.cancel("first")
        before = store.jobs()
        bench.controller.cancel("second")
        assert store.jobs() == before
        assert {job.reason for job in before} == {"first"}

    def test_what_has_ended_stays_as_it_ended(self, store: Store) -> None:
        bench = Bench(
            store, FakeCluster((node("a"),), outcome=lambda job, _: int(job.job_id == "b")), *map(spec, "abc")
        )
        for _ in range(3):
            bench.step()
        bench.controller.cancel()
        assert bench.states() == {"a": "succeeded", "b": "failed", "c": "cancelled"}

    def test_a_job_that_would_be_tried_again_is_not(self, store: Store) -> None:
        cluster = FakeCluster((node("a"),), outcome=fails(1))
        bench = Bench(store, cluster, spec("j", failures=1), spec("urgent", priority=9))
        bench.step()
        bench.step()
        bench.controller.cancel()
        assert bench.finish() == 1
        assert bench.started() == [("urgent", 1), ("j", 1)]
        assert bench.job().state is JobState.CANCELLED

    def test_attempts_are_stopped_even_where_the_ledger_cannot_take_the_note(
        self, store: Store, tmp_path: Path
    ) -> None:
        cluster = FakeCluster((node("a", gpus=2),))
        bench = Bench(store, cluster, spec("a"), spec("b"))
        bench.step()
        assert set(cluster.running) == {"a", "b"}
        refused = pytest.raises(InputError, match="the ledger cannot be written")
        with contextlib.closing(Full(tmp_path / "state.db")) as full, refused:
            Controller(full, cluster, run_id="r").cancel()
        assert cluster.running == {}

    def test_another_run_of_the_same_ledger_goes_on(self, store: Store) -> None:
        cluster = FakeCluster((node("a", gpus=2),))
        mine, theirs = Bench(store, cluster, spec("a")), Bench(store, cluster, spec("b"), run_id="other")
        mine.step()
        mine.controller.cancel()
        theirs.finish()
        assert (mine.states(), theirs.states()) == ({"a": "cancelled"}, {"b": "succeeded"})


class Full(Store):
    """A ledger on a disk that takes no note of an end."""

    def end_attempt(self, *_: object, **__: object) -> None:
        raise InputError("the ledger cannot be written: database or disk is full.")


class TestWork:
    def test_all_jobs_succeed_one_after_another_on_one_device(self, store: Store) -> None:
        bench = Bench(store, FakeCluster((node("a"),)), *(spec(name) for name in "abc"))
        assert bench.finish() == 4
        assert bench.states() == dict.fromkeys("abc", "succeeded")
        assert bench.started() == [("a", 1), ("b", 1), ("c", 1)]

    def test_a_run_without_jobs_is_done(self, store: Store) -> None:
        assert not Bench(store, FakeCluster((node("a"),))).step()

    def test_as_many_run_at_once_as_there_is_room_for(self, store: Store) -> None:
        cluster = FakeCluster((node("a", gpus=2), node("b", "L4")))
        bench = Bench(store, cluster, *(spec(name) for name in "vwxyz"))
        bench.step()
        assert len(cluster.running) == 3
        assert bench.finish() == 2
        assert bench.states() == dict.fromkeys("vwxyz", "succeeded")

    def test_memory_is_a_limit_as_gpus_are(self, store: Store) -> None:
        cluster = FakeCluster((node("a", gpus=4, memory_gb=16.0),))
        bench = Bench(store, cluster, *(spec(name, memory_gb=8.0) for name in "xyz"))
        bench.step()
        assert set(cluster.running) == {"x", "y"}

    def test_a_short_job_frees_its_place_while_a_long_one_goes_on(self, store: Store) -> None:
        cluster = FakeCluster((node("a", gpus=2),), lasts=lambda job, _: 3 if job.job_id == "long" else 1)
        bench = Bench(store, cluster, spec("long"), spec("b"), spec("c"))
        bench.step()
        bench.step()
        assert bench.states() == {"long": "running", "b": "succeeded", "c": "running"}

    def test_higher_priority_starts_first_and_the_order_of_submission_decides_among_equals(self, store: Store) -> None:
        jobs = [spec("low", priority=-1), spec("first"), spec("second"), spec("high", priority=5)]
        bench = Bench(store, FakeCluster((node("a"),)), *jobs)
        bench.finish()
        assert [name for name, _ in bench.started()] == ["high", "first", "second", "low"]

    def test_each_attempt_is_noted_with_its_place_and_its_times(self, store: Store) -> None:
        cluster = FakeCluster((node("a", "L4"),))
        bench = Bench(store, cluster, spec())
        bench.finish()
        (attempt,) = bench.job().attempts
        assert (attempt.node, attempt.accelerator) == ("id-a", "L4")
        assert (attempt.started_ns, attempt.ended_ns) == (1, 2)

    def test_only_the_jobs_of_its_run_are_started(self, store: Store) -> None:
        cluster = FakeCluster((node("a", gpus=2),))
        Bench(store, cluster, spec("theirs"), run_id="other")
        bench = Bench(store, cluster, spec("mine"))
        bench.finish()
        assert bench.started() == [("mine", 1)]
        assert store.job("theirs").state is JobState.QUEUED
