"""What every cluster must do, as checks that run over the fake and over Ray alike.

A check of ``CHECKS`` gets an idle cluster of at least two nodes, an ``H100`` and an ``L4`` with one GPU each, and
leaves it idle. One of ``SUCCESSION`` gets a way to join such a cluster, and joins it again and again, as one controller
does after another. ``tests.ray_checks`` runs them over Ray, with those of Ray alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from orchestrator.cluster.port import Cluster, Ended
from orchestrator.scheduling.snapshot import NodeView
from workers.contract import Adapter, JobSpec, Training

Join = Callable[[], Cluster]
"""Gives the cluster as a controller that starts finds it. The one before was closed; its attempts go on."""
Check = Callable[[Cluster], None]
SuccessionCheck = Callable[[Join], None]
PATIENCE_S = 100.0
NO_MODEL = "tiny/none-such"
"""A job that names it fails within a second or two, with its reason and exit code 2."""
FOR_EVER = Training(max_steps=1_000_000, epochs=1_000_000)
"""A job that trains so long runs until it is stopped."""


def job(job_id: str, *, accelerator: str = "H100", model: str = "tiny/vit", **resources: object) -> JobSpec:
    """The smallest job there is: a model is scored on one sample."""
    return JobSpec.model_validate(
        {
            "job_id": job_id,
            "kind": "evaluate",
            "task": "digits",
            "model": model,
            "evaluation": {"max_samples": 1},
            "resources": {"accelerators": [accelerator], **resources},
        }
    )


def endless(job_id: str, *, accelerator: str = "H100", **resources: object) -> JobSpec:
    """A job that runs until it is stopped."""
    spec = job(job_id, accelerator=accelerator, **resources)
    return spec.model_copy(update={"kind": "finetune", "adapter": Adapter(method="lora"), "training": FOR_EVER})


def node(cluster: Cluster, accelerator: str) -> NodeView:
    """The one node with that accelerator, as it is now."""
    (found,) = [one for one in cluster.view().nodes if one.accelerator == accelerator]
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Look until it is so; a real cluster's books are a moment behind."""
    deadline_s, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        pause.wait(0.05)


def gather(cluster: Cluster, count: int) -> list[Ended]:
    """The next ``count`` ends, and proof that none comes after them."""
    found: list[Ended] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline_s, f"{len(found)} of {count} attempts ended in time: {found}"
        found += cluster.ended(timeout_s=0.5)
    assert cluster.ended(timeout_s=0.1) == ()
    return found


def is_idle(cluster: Cluster) -> bool:
    """Whether all GPUs are free."""
    return all(one.gpus_free == one.gpus_total for one in cluster.view().alive)


def the_view_has_each_node_with_its_accelerator_type_and_all_of_it_free(cluster: Cluster) -> None:
    seen = cluster.view()
    assert seen.accelerator_types == ("H100", "L4")
    assert dict(seen.gpus_by_type) == {"H100": 1, "L4": 1}
    assert len({one.node_id for one in seen.nodes}) == len({one.name for one in seen.nodes}) == len(seen.nodes)
    for one in (node(cluster, "H100"), node(cluster, "L4")):
        assert one.alive
        assert one.simulated
        assert not one.is_head
        assert (one.gpus_free, one.shares_free) == (1, ())
        assert one.cpus_free == one.cpus_total >= 1.0
        assert one.memory_free_gb is not None
        assert one.memory_total_gb is not None
        assert 0 < one.memory_free_gb <= one.memory_total_gb


def nothing_has_ended_where_nothing_runs(cluster: Cluster) -> None:
    assert cluster.ended(timeout_s=0.05) == ()


def stopping_an_unknown_job_is_harmless(cluster: Cluster) -> None:
    cluster.stop("nobody", checkpoint=False)
    cluster.stop("nobody", checkpoint=True)
    assert is_idle(cluster)
    assert cluster.ended(timeout_s=0.05) == ()


def a_launch_takes_its_capacity_at_once_and_a_stop_ends_it_once_and_frees_it(cluster: Cluster) -> None:
    before = node(cluster, "H100")
    cluster.launch(endless("taken", cpus=0.5, memory_gb=0.25), attempt=1, nodes=(before.node_id,))
    now = node(cluster, "H100")
    assert (now.gpus_free, now.cpus_free) == (0, before.cpus_total - 0.5)
    assert now.memory_free_gb is not None
    assert before.memory_total_gb is not None
    assert now.memory_free_gb <= before.memory_total_gb - 0.25
    assert node(cluster, "L4").gpus_free == 1
    cluster.stop("taken", checkpoint=False)
    cluster.stop("taken", checkpoint=False)
    (end,) = gather(cluster, 1)
    assert_stopped(end, "taken", 1)
    until(lambda: is_idle(cluster), "the place to be free again")
    cluster.stop("taken", checkpoint=False)
    assert cluster.ended(timeout_s=0.1) == ()


def assert_stopped(end: Ended, job_id: str, attempt: int) -> None:
    """It ended, not well, and says why; which exit code it leaves depends on how far it was."""
    assert (end.job_id, end.attempt, end.succeeded) == (job_id, attempt, False)
    assert end.reason


def success_and_failure_are_each_reported_once_with_the_reason_of_the_failure(cluster: Cluster) -> None:
    cluster.launch(job("good"), attempt=1, nodes=(node(cluster, "H100").node_id,))
    cluster.launch(job("bad", accelerator="L4", model=NO_MODEL), attempt=2, nodes=(node(cluster, "L4").node_id,))
    ends = {end.job_id: end for end in gather(cluster, 2)}
    assert (ends["good"].attempt, ends["good"].exit_code, ends["good"].reason) == (1, 0, None)
    assert ends["good"].succeeded
    assert (ends["bad"].attempt, ends["bad"].exit_code) == (2, 2)
    assert ends["bad"].reason
    assert not ends["bad"].succeeded
    until(lambda: is_idle(cluster), "both places to be free again")


def a_stop_that_lets_it_save_first_ends_it_too_and_one_that_does_not_may_follow(cluster: Cluster) -> None:
    cluster.launch(endless("saves"), attempt=1, nodes=(node(cluster, "H100").node_id,))
    cluster.stop("saves", checkpoint=True)
    cluster.stop("saves", checkpoint=False)
    (end,) = gather(cluster, 1)
    assert_stopped(end, "saves", 1)
    until(lambda: is_idle(cluster), "the place to be free again")


def a_stopped_job_may_be_launched_again_and_each_attempt_ends_once(cluster: Cluster) -> None:
    place = node(cluster, "L4").node_id
    cluster.launch(endless("again", accelerator="L4"), attempt=1, nodes=(place,))
    cluster.stop("again", checkpoint=False)
    assert_stopped(*gather(cluster, 1), "again", 1)
    until(lambda: is_idle(cluster), "the place to be free again")
    cluster.launch(job("again", accelerator="L4", model=NO_MODEL), attempt=2, nodes=(place,))
    (end,) = gather(cluster, 1)
    assert (end.job_id, end.attempt, end.exit_code) == ("again", 2, 2)
    until(lambda: is_idle(cluster), "the place to be free again")


def a_stop_leaves_the_other_jobs_alone(cluster: Cluster) -> None:
    cluster.launch(endless("stopped"), attempt=1, nodes=(node(cluster, "H100").node_id,))
    cluster.launch(job("kept", accelerator="L4", model=NO_MODEL), attempt=1, nodes=(node(cluster, "L4").node_id,))
    cluster.stop("stopped", checkpoint=False)
    ends = {end.job_id: end for end in gather(cluster, 2)}
    assert_stopped(ends["stopped"], "stopped", 1)
    assert ends["kept"].exit_code == 2
    until(lambda: is_idle(cluster), "both places to be free again")


def a_gang_takes_all_its_nodes_at_once_and_ends_once_with_a_reason(cluster: Cluster) -> None:
    cluster.launch(job("gang", model=NO_MODEL, nodes=2), attempt=1, nodes=both(cluster))
    assert [node(cluster, name).gpus_free for name in ("H100", "L4")] == [0, 0]
    (end,) = gather(cluster, 1)
    assert (end.job_id, end.attempt, end.exit_code) == ("gang", 1, 2)
    assert end.reason
    until(lambda: is_idle(cluster), "both places to be free again")


def a_gang_that_is_stopped_ends_once_on_all_its_nodes(cluster: Cluster) -> None:
    cluster.launch(endless("gang-stopped", nodes=2), attempt=1, nodes=both(cluster))
    cluster.stop("gang-stopped", checkpoint=False)
    assert_stopped(*gather(cluster, 1), "gang-stopped", 1)
    until(lambda: is_idle(cluster), "both places to be free again")


def both(cluster: Cluster) -> tuple[str, str]:
    """The two nodes with a GPU."""
    return node(cluster, "H100").node_id, node(cluster, "L4").node_id


def two_halves_share_a_gpu(cluster: Cluster) -> None:
    place = node(cluster, "H100").node_id
    for count, shares in enumerate([(0.5,), ()], 1):
        cluster.launch(endless(f"half-{count}", gpus=0.5, cpus=0.25), attempt=1, nodes=(place,))
        assert (node(cluster, "H100").gpus_free, node(cluster, "H100").shares_free) == (0, shares)
    cluster.stop("half-1", checkpoint=False)
    assert_stopped(*gather(cluster, 1), "half-1", 1)
    until(lambda: node(cluster, "H100").shares_free == (0.5,), "one half to be free again")
    assert node(cluster, "H100").gpus_free == 0
    cluster.stop("half-2", checkpoint=False)
    assert_stopped(*gather(cluster, 1), "half-2", 1)
    until(lambda: is_idle(cluster), "the GPU to be whole again")
    assert node(cluster, "H100").shares_free == ()


def a_flush_returns(cluster: Cluster) -> None:
    cluster.flush()


def clocks_of_one_machine_agree(cluster: Cluster) -> None:
    found = {reading.node: reading for reading in cluster.clocks()}
    assert set(found) == {node(cluster, "H100").name, node(cluster, "L4").name}
    assert not any(reading.is_skewed for reading in found.values())
    assert all(abs(reading.offset_ns) <= reading.uncertainty_ns for reading in found.values())


CHECKS: tuple[Check, ...] = (
    the_view_has_each_node_with_its_accelerator_type_and_all_of_it_free,
    nothing_has_ended_where_nothing_runs,
    stopping_an_unknown_job_is_harmless,
    a_launch_takes_its_capacity_at_once_and_a_stop_ends_it_once_and_frees_it,
    success_and_failure_are_each_reported_once_with_the_reason_of_the_failure,
    a_stop_that_lets_it_save_first_ends_it_too_and_one_that_does_not_may_follow,
    a_stopped_job_may_be_launched_again_and_each_attempt_ends_once,
    a_stop_leaves_the_other_jobs_alone,
    a_gang_takes_all_its_nodes_at_once_and_ends_once_with_a_reason,
    a_gang_that_is_stopped_ends_once_on_all_its_nodes,
    two_halves_share_a_gpu,
    a_flush_returns,
    clocks_of_one_machine_agree,
)
"""In an order in which the first that fails says most."""
NAMES = [check.__name__ for check in CHECKS]


def attempts_that_run_are_taken_up_by_the_next_and_hold_their_places(join: Join) -> None:
    alone, gang = endless("goes-on", gpus=0.5, cpus=0.25), endless("gang-goes-on", nodes=2, gpus=0.5, cpus=0.25)
    with contextlib.closing(join()) as first:
        places = both(first)
        first.launch(alone, attempt=1, nodes=places[:1])
        first.launch(gang, attempt=3, nodes=places)
    with contextlib.closing(join()) as second:
        second.adopt(alone, attempt=1, nodes=places[:1])
        second.adopt(gang, attempt=3, nodes=places)
        assert [node(second, name).gpus_free for name in ("H100", "L4")] == [0, 0]
        assert [node(second, name).shares_free for name in ("H100", "L4")] == [(), (0.5,)]
        assert second.ended(timeout_s=0.1) == ()
        second.stop("goes-on", checkpoint=False)
        assert_stopped(*gather(second, 1), "goes-on", 1)
        second.stop("gang-goes-on", checkpoint=False)
        assert_stopped(*gather(second, 1), "gang-goes-on", 3)
        until(lambda: is_idle(second), "both places to be free again")


def an_end_that_was_told_but_not_noted_is_told_again_to_the_next(join: Join) -> None:
    bad = job("told", model=NO_MODEL)
    with contextlib.closing(join()) as first:
        places = both(first)[:1]
        first.launch(bad, attempt=1, nodes=places)
        told = gather(first, 1)
    with contextlib.closing(join()) as second:
        second.adopt(bad, attempt=1, nodes=places)
        assert gather(second, 1) == told
        until(lambda: is_idle(second), "the place to be free again")


def one_that_never_started_is_lost(join: Join) -> None:
    with contextlib.closing(join()) as cluster:
        places = both(cluster)
        cluster.adopt(endless("never"), attempt=2, nodes=places[:1])
        cluster.adopt(endless("never-gang", nodes=2), attempt=1, nodes=places)
        ends = {end.job_id: end for end in gather(cluster, 2)}
        assert (ends["never"].attempt, ends["never"].exit_code) == (2, None)
        assert (ends["never-gang"].attempt, ends["never-gang"].exit_code) == (1, None)
        assert all(end.reason for end in ends.values())
        until(lambda: is_idle(cluster), "all places to be free")


SUCCESSION: tuple[SuccessionCheck, ...] = (
    attempts_that_run_are_taken_up_by_the_next_and_hold_their_places,
    an_end_that_was_told_but_not_noted_is_told_again_to_the_next,
    one_that_never_started_is_lost,
)
SUCCESSION_NAMES = [check.__name__ for check in SUCCESSION]
