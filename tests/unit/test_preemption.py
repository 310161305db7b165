"""A job of higher priority takes the place of few, unimportant jobs, when that is of use, and of nobody twice."""

import pytest

from orchestrator.scheduling.placement import Preemption, decide
from tests.queueing import NOW_NS, job, node, on, placed, quota, snapshot, told


def evicted(decisions):
    return [one.job_id for one in decisions.preemptions]


def urgent(**more):
    return job("urgent", priority=2, **more)


@pytest.mark.parametrize("victim", [{"priority": 2}, {"priority": 3}, {"priority": 0, "preemptible": False}])
def test_an_equal_or_more_important_or_protected_job_stays(victim):
    decisions = decide(snapshot([urgent()], node("a", free=0), running=[on(job("v", **victim), "a")]))
    assert evicted(decisions) == []
    assert told(decisions)["urgent"].startswith("waits for an accelerator: the only one is busy")


def test_nobody_leaves_when_that_would_not_make_room():
    running = [on(job("v"), "a"), on(job("w", preemptible=False), "a")]
    assert evicted(decide(snapshot([urgent(gpus=2)], node("a", gpus=2, free=0), running=running))) == []


def test_nobody_leaves_where_there_is_room():
    where = (node("a", free=0), node("b"))
    decisions = decide(snapshot([urgent()], *where, running=[on(job("v"), "a")]))
    assert (evicted(decisions), placed(decisions)) == ([], {"urgent": ("b",)})


def test_nobody_leaves_for_a_job_over_its_quota():
    running = [on(job("v", user="bob"), "a")]
    assert evicted(decide(snapshot([urgent()], node("a", free=0), running=running, quotas=[quota(0.5, "ann")]))) == []


def test_both_sides_are_told_why():
    decisions = decide(snapshot([urgent()], node("a", free=0), running=[on(job("v"), "a")]))
    assert decisions.preemptions == (
        Preemption(
            job_id="v",
            for_job="urgent",
            reason="makes room on a for urgent, whose priority is 2 and not 0",
        ),
    )
    assert told(decisions) == {"urgent": "waits for v to leave a, where it starts next"}


def test_the_least_important_leaves_and_of_equals_the_latest():
    running = [
        on(job("old"), "a", started_ns=NOW_NS - 9),
        on(job("new"), "a", started_ns=NOW_NS - 1),
        on(job("better", priority=1), "a", started_ns=NOW_NS),
    ]
    assert evicted(decide(snapshot([urgent()], node("a", gpus=3, free=0), running=running))) == ["new"]


def test_one_large_job_leaves_rather_than_several_small():
    running = [*[on(job(name), "a") for name in "vwxy"], on(job("large", gpus=4), "a")]
    assert evicted(decide(snapshot([urgent(gpus=4)], node("a", gpus=8, free=0), running=running))) == ["large"]


def test_the_node_where_fewest_have_to_leave_is_taken():
    where = (node("a", gpus=2, free=0), node("b", gpus=2, free=1))
    running = [on(job("v"), "a"), on(job("w"), "a"), on(job("x"), "b")]
    assert evicted(decide(snapshot([urgent(gpus=2)], *where, running=running))) == ["x"]


def test_a_gang_has_others_leave_all_its_nodes_at_once():
    where = (node("a", free=0), node("b", free=0), node("c"))
    running = [on(job("v"), "a"), on(job("w", priority=1), "b")]
    decisions = decide(snapshot([urgent(nodes=3)], *where, running=running))
    assert sorted(evicted(decisions)) == ["v", "w"]
    assert told(decisions) == {"urgent": "waits for v, w to leave a and b, where it starts next"}


def test_a_gang_that_leaves_one_node_leaves_all():
    where = (node("a", free=0), node("b", free=0))
    decisions = decide(
        snapshot([urgent(), job("next", priority=1)], *where, running=[on(job("gang", nodes=2), "a", "b")])
    )
    assert evicted(decisions) == ["gang"]
    assert told(decisions)["next"] == "waits for gang to leave b, where it starts next"


def test_while_they_leave_the_room_is_kept_and_nobody_else_is_asked():
    where = (node("a", free=0), node("b", free=0))
    running = [on(job("v"), "a", leaving=True), on(job("w"), "b")]
    decisions = decide(snapshot([urgent(), job("small", priority=0)], *where, running=running))
    assert evicted(decisions) == []
    assert told(decisions)["urgent"] == "waits for v to leave a, where it starts next"
    assert told(decisions)["small"].startswith("waits for an accelerator: all 2 are busy")


def test_a_job_behind_does_not_take_a_part_of_the_room_that_is_being_made():
    where = node("a", gpus=2, free=1)
    running = [on(job("v"), "a", leaving=True)]
    decisions = decide(snapshot([urgent(gpus=2), job("small", limit_s=1.0)], where, running=running))
    assert placed(decisions) == {}
    assert told(decisions)["small"] == (
        "waits for urgent, which comes first: the room on a is kept for it; next in line for a"
    )


def test_a_part_makes_no_whole_gpu_while_another_job_may_share_it():
    # Of two GPUs three halves are held: whose is alone on its GPU nobody tells, so one alone may leave in vain.
    running = [on(job(name, gpus=0.5), "a", started_ns=NOW_NS - at) for at, name in enumerate("uvw")]
    where = node("a", gpus=2, free=0, shares_free=(0.5,))
    assert evicted(decide(snapshot([urgent()], where, running=running))) == ["u", "v", "w"]
    kept = [*running[:2], on(job("w", gpus=0.5, preemptible=False), "a")]
    assert evicted(decide(snapshot([urgent()], where, running=kept))) == []
    assert evicted(decide(snapshot([urgent(gpus=0.5)], node("a", gpus=1, free=0), running=running[:2]))) == ["u"]
