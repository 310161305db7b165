"""The fake cluster keeps the port's promises, and catches a controller that asks too much of a node."""

from __future__ import annotations

import pytest

from orchestrator.cluster.fake import ASKED_TO_LEAVE, ASKED_TO_SAVE, FakeCluster
from orchestrator.scheduling.snapshot import NodeView
from tests.cluster_contract import CHECKS, FOR_EVER, NAMES, SUCCESSION, SUCCESSION_NAMES, Check, SuccessionCheck, job
from workers.contract import JobSpec
from workers.errors import UnknownNameError
from workers.training.models import MODELS
from workers.units import NS_PER_S


def node(name: str, accelerator: str | None, *, gpus: int = 1, is_head: bool = False) -> NodeView:
    return NodeView(
        node_id=f"id-{name}",
        name=name,
        accelerator=accelerator,
        simulated=accelerator is not None,
        gpus_total=gpus,
        gpus_free=gpus,
        cpus_total=1.0,
        cpus_free=1.0,
        memory_free_gb=8.0,
        memory_total_gb=8.0,
        is_head=is_head,
    )


A, B = node("a", "H100"), node("b", "L4")


def known_model(spec: JobSpec, _: int) -> int:
    """As a real attempt: a model that is not there is exit code 2."""
    return 0 if spec.model in MODELS else 2


def second_or_for_ever(spec: JobSpec, _: int) -> float | None:
    return None if spec.training == FOR_EVER else 1.0


@pytest.fixture
def cluster() -> FakeCluster:
    head = node("head", None, gpus=0, is_head=True)
    return FakeCluster((head, A, B), outcome=known_model, lasts_s=second_or_for_ever)


class TestRefusals:
    def test_an_unknown_node_is_refused(self, cluster: FakeCluster) -> None:
        with pytest.raises(UnknownNameError, match="unknown node 'id-c'"):
            cluster.launch(job("j"), attempt=1, nodes=("id-c",))

    @pytest.mark.parametrize("resources", [{"gpus": 2}, {"cpus": 1.5}, {"memory_gb": 9.0}])
    def test_more_than_a_node_has_is_a_bug_of_whoever_asked(
        self, cluster: FakeCluster, resources: dict[str, float]
    ) -> None:
        with pytest.raises(AssertionError, match="id-a has no room for j"):
            cluster.launch(job("j", **resources), attempt=1, nodes=("id-a",))
        assert cluster.history == []

    def test_what_runs_is_counted_against_what_a_node_has(self, cluster: FakeCluster) -> None:
        cluster.launch(job("first"), attempt=1, nodes=("id-a",))
        with pytest.raises(AssertionError, match="id-a has no room for second"):
            cluster.launch(job("second"), attempt=1, nodes=("id-a",))

    def test_parts_of_two_gpus_are_no_whole_one(self) -> None:
        cluster = FakeCluster((node("a", "H100", gpus=2),))
        for name, part in (("a", 0.6), ("b", 0.6), ("c", 0.4)):
            cluster.launch(job(name, gpus=part, cpus=0.1), attempt=1, nodes=("id-a",))
        (seen,) = cluster.view().nodes
        assert (seen.gpus_free, seen.shares_free) == (0, (0.4,))
        with pytest.raises(AssertionError, match="id-a has no room for d"):
            cluster.launch(job("d", gpus=0.5, cpus=0.1), attempt=1, nodes=("id-a",))

    def test_a_job_that_runs_already_is_not_launched_beside_itself(self, cluster: FakeCluster) -> None:
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        with pytest.raises(AssertionError, match="j runs already"):
            cluster.launch(job("j"), attempt=2, nodes=("id-b",))

    def test_an_attempt_is_launched_once_only(self, cluster: FakeCluster) -> None:
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        assert len(cluster.ended(timeout_s=2)) == 1
        with pytest.raises(AssertionError, match="attempt 1 of j was launched before"):
            cluster.launch(job("j"), attempt=1, nodes=("id-b",))

    @pytest.mark.parametrize("nodes", [("id-a",), ("id-a", "id-a"), ("id-a", "id-b", "id-head")])
    def test_a_gang_gets_as_many_nodes_as_it_asked_for(self, cluster: FakeCluster, nodes: tuple[str, ...]) -> None:
        with pytest.raises(AssertionError, match="gang is not for"):
            cluster.launch(job("gang", nodes=2, gpus=0), attempt=1, nodes=nodes)


class TestTime:
    def test_waiting_lets_time_pass_until_the_first_end_and_no_further(self) -> None:
        cluster = FakeCluster((A, B), lasts_s=lambda spec, _: 5.0 if spec.job_id == "long" else 2.0)
        cluster.launch(job("long"), attempt=1, nodes=("id-a",))
        cluster.launch(job("short"), attempt=1, nodes=("id-b",))
        assert cluster.ended(timeout_s=1.5) == ()
        assert cluster.clock() == 1.5 * NS_PER_S
        (short,) = cluster.ended(timeout_s=10)
        assert (short.job_id, short.ended_ns, cluster.clock()) == ("short", 2 * NS_PER_S, 2 * NS_PER_S)
        assert set(cluster.running) == {"long"}
        (long,) = cluster.ended(timeout_s=10)
        assert (long.job_id, long.ended_ns) == ("long", 5 * NS_PER_S)
        assert cluster.ended(timeout_s=10) == ()
        assert cluster.clock() == 15 * NS_PER_S

    def test_what_has_ended_is_free_in_the_view_only_after_its_lag(self) -> None:
        cluster = FakeCluster((A,), lag_s=3)
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        assert len(cluster.ended(timeout_s=1)) == 1
        assert cluster.view().nodes[0].gpus_free == 0
        cluster.clock.advance(3)
        assert cluster.view().nodes[0].gpus_free == 1

    def test_one_that_is_asked_to_leave_takes_its_time_unless_it_ends_before(self) -> None:
        cluster = FakeCluster((A, B), lasts_s=lambda *_: 10.0, leaves_s=lambda _, saves: 30.0 if saves else 5.0)
        cluster.launch(job("a"), attempt=1, nodes=("id-a",))
        cluster.launch(job("b"), attempt=1, nodes=("id-b",))
        cluster.stop("a", checkpoint=True)
        cluster.stop("b", checkpoint=False)
        ends = [*cluster.ended(timeout_s=60), *cluster.ended(timeout_s=60)]
        assert [(end.job_id, end.exit_code, end.ended_ns) for end in ends] == [
            ("b", ASKED_TO_LEAVE, 5 * NS_PER_S),
            ("a", 0, 10 * NS_PER_S),
        ]

    def test_one_that_saves_says_so_with_its_exit_code(self) -> None:
        cluster = FakeCluster((A,), leaves_s=lambda *_: 0.5)
        cluster.launch(job("a"), attempt=1, nodes=("id-a",))
        cluster.stop("a", checkpoint=True)
        assert [end.exit_code for end in cluster.ended(timeout_s=1)] == [ASKED_TO_SAVE]


class TestLosses:
    def test_a_lost_worker_has_no_exit_code(self) -> None:
        cluster = FakeCluster((A,), outcome=lambda *_: None)
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        assert [(e.exit_code, e.reason) for e in cluster.ended(timeout_s=1)] == [(None, "its worker was lost")]

    def test_a_lost_node_ends_all_that_had_a_part_there_and_frees_the_rest_of_a_gang(
        self, cluster: FakeCluster
    ) -> None:
        cluster.launch(job("gang", nodes=2), attempt=1, nodes=("id-a", "id-b"))
        cluster.lose("id-b")
        assert [(e.job_id, e.exit_code, e.reason) for e in cluster.ended(timeout_s=0)] == [
            ("gang", None, "node b was lost")
        ]
        assert {one.name: (one.alive, one.gpus_free) for one in cluster.view().nodes} == {
            "head": (True, 0),
            "a": (True, 1),
            "b": (False, 1),
        }
        cluster.launch(job("late"), attempt=1, nodes=("id-b",))
        assert [(e.exit_code, e.reason) for e in cluster.ended(timeout_s=0)] == [(None, "it did not start")]

    def test_a_node_that_comes_back_is_empty_and_one_may_join(self) -> None:
        cluster = FakeCluster((A,), lag_s=5)
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        cluster.lose("id-a")
        cluster.join(A)
        cluster.join(B)
        assert [(one.name, one.alive, one.gpus_free) for one in cluster.view().nodes] == [
            ("a", True, 1),
            ("b", True, 1),
        ]
        cluster.clock.advance(5)
        assert [one.gpus_free for one in cluster.view().nodes] == [1, 1], "nothing is given back twice"

    def test_one_that_does_not_start_holds_nothing(self) -> None:
        cluster = FakeCluster((A,), starts=lambda _, attempt: attempt > 1)
        cluster.launch(job("j"), attempt=1, nodes=("id-a",))
        assert cluster.view().nodes[0].gpus_free == 1
        assert [e.exit_code for e in cluster.ended(timeout_s=0)] == [None]
        cluster.launch(job("j"), attempt=2, nodes=("id-a",))
        assert [e.exit_code for e in cluster.ended(timeout_s=1)] == [0]


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_it_keeps_the_ports_promises(cluster: FakeCluster, check: Check) -> None:
    check(cluster)
    assert cluster.running == {}
    cluster.close()
    cluster.close()


@pytest.mark.parametrize("check", SUCCESSION, ids=SUCCESSION_NAMES)
def test_it_outlives_a_controller(cluster: FakeCluster, check: SuccessionCheck) -> None:
    check(lambda: cluster)
    assert cluster.running == {}
