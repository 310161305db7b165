"""The fake cluster keeps the port's promises, and catches a controller that asks too much of a node."""

from __future__ import annotations

import pytest

from orchestrator.cluster.fake import FakeCluster
from orchestrator.scheduling.snapshot import NodeView
from tests.cluster_contract import CHECKS, NAMES, Check, job
from workers.contract import JobSpec
from workers.errors import UnknownNameError
from workers.training.models import MODELS


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


def known_model(spec: JobSpec, _: int) -> int:
    """As a real attempt: a model that is not there is exit code 2."""
    return 0 if spec.model in MODELS else 2


@pytest.fixture
def cluster() -> FakeCluster:
    nodes = (node("head", None, gpus=0, is_head=True), node("a", "H100"), node("b", "L4"))
    return FakeCluster(nodes, outcome=known_model)


def test_an_unknown_node_is_refused(cluster: FakeCluster) -> None:
    with pytest.raises(UnknownNameError, match="unknown node 'id-c'"):
        cluster.launch(job("j"), attempt=1, node_id="id-c")


@pytest.mark.parametrize("resources", [{"gpus": 2}, {"cpus": 1.5}, {"memory_gb": 9.0}])
def test_more_than_a_node_has_is_a_bug_of_whoever_asked(cluster: FakeCluster, resources: dict[str, float]) -> None:
    with pytest.raises(AssertionError, match="id-a has no room for j"):
        cluster.launch(job("j", **resources), attempt=1, node_id="id-a")
    assert cluster.history == []


def test_what_runs_is_counted_against_what_a_node_has(cluster: FakeCluster) -> None:
    cluster.launch(job("first"), attempt=1, node_id="id-a")
    with pytest.raises(AssertionError, match="id-a has no room for second"):
        cluster.launch(job("second"), attempt=1, node_id="id-a")


def test_a_job_that_runs_already_is_not_launched_beside_itself(cluster: FakeCluster) -> None:
    cluster.launch(job("j"), attempt=1, node_id="id-a")
    with pytest.raises(AssertionError, match="j runs already"):
        cluster.launch(job("j"), attempt=2, node_id="id-b")


def test_attempts_last_as_long_as_their_script_says_and_may_be_lost(cluster: FakeCluster) -> None:
    nodes = (node("a", "H100"), node("b", "L4"))
    scripted = FakeCluster(nodes, outcome=lambda *_: None, lasts=lambda spec, _: 2 if spec.job_id == "long" else 1)
    scripted.launch(job("long"), attempt=1, node_id="id-a")
    scripted.launch(job("short"), attempt=1, node_id="id-b")
    assert [(end.job_id, end.exit_code, end.reason) for end in scripted.ended(timeout_s=0)] == [
        ("short", None, "its worker was lost")
    ]
    assert set(scripted.running) == {"long"}
    assert [end.job_id for end in scripted.ended(timeout_s=0)] == ["long"]


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_it_keeps_the_ports_promises(cluster: FakeCluster, check: Check) -> None:
    check(cluster)
    assert cluster.running == {}
    cluster.close()
    cluster.close()
