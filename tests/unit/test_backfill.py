"""Room that is kept for the first in line is used by others only as long as it does not make it wait."""

from orchestrator.scheduling.placement import decide
from tests.queueing import MINUTE_NS, NOW_NS, job, node, on, placed, snapshot, told

HALF_BUSY = (node("a", gpus=4, free=2), node("b", "L4", gpus=4, free=4))


def large(**more):
    return job("large", "H100", gpus=4, **more)


def holder(limit_s):
    """Holds half of node ``a``, since ten minutes."""
    return on(job("holder", gpus=2, limit_s=limit_s), "a", started_ns=NOW_NS - 10 * MINUTE_NS)


def test_a_small_job_without_an_end_does_not_take_what_the_first_in_line_waits_for():
    decisions = decide(snapshot([large(), job("small", "H100", submitted_ns=1)], *HALF_BUSY, running=[holder(3600)]))
    assert placed(decisions) == {}
    assert told(decisions) == {
        "large": "waits for 4 GPUs and 1 CPU core on one node: a has 2 GPUs and 8 CPU cores free; "
        "next in line for a, free in 50 min at the latest",
        "small": "waits for large, which comes first: the room on a is kept for it",
    }


def test_one_that_would_end_too_late_waits_as_well():
    small = job("small", "H100", submitted_ns=1, limit_s=3001)
    assert placed(decide(snapshot([large(), small], *HALF_BUSY, running=[holder(3600)]))) == {}


def test_one_that_ends_before_uses_the_room_meanwhile():
    small = job("small", "H100", submitted_ns=1, limit_s=3000)
    decisions = decide(snapshot([large(), small], *HALF_BUSY, running=[holder(3600)]))
    assert placed(decisions) == {"small": ("a",)}
    assert decisions.placements[0].why == "a has a free H100, and it ends before large can use the room"


def test_what_the_first_in_line_leaves_over_is_used_without_an_end():
    queue = [job("large", "H100", gpus=3), *[job(name, "H100", submitted_ns=1) for name in "xy"]]
    assert placed(decide(snapshot(queue, *HALF_BUSY, running=[holder(3600)]))) == {"x": ("a",)}


def test_other_accelerators_are_not_kept():
    queue = [large(), job("small", "H100", "L4", submitted_ns=1)]
    assert placed(decide(snapshot(queue, *HALF_BUSY, running=[holder(None)]))) == {"small": ("b",)}


def test_a_job_without_a_time_limit_is_waited_for_after_all_that_have_one():
    nodes = (node("a", gpus=2, free=0), node("b", gpus=2, free=0))
    running = [on(job("long", gpus=2, limit_s=9e6), "b"), on(job("endless", gpus=2), "a")]
    reason = told(decide(snapshot([job("j", gpus=2)], *nodes, running=running)))["j"]
    assert reason.endswith("next in line for b, free in 105 days at the latest")


def test_the_place_that_is_free_soonest_is_promised():
    nodes = (node("a", free=0), node("b", free=0))
    running = [on(job("long", limit_s=7200), "a"), on(job("short", limit_s=60), "b")]
    assert told(decide(snapshot([job("j")], *nodes, running=running)))["j"].endswith(
        "next in line for b, free in 1 min at the latest"
    )


def test_a_gang_is_promised_nodes_together():
    nodes = (node("a"), node("b", free=0), node("c", free=0))
    running = [on(job("long", limit_s=7200), "b"), on(job("short", limit_s=60), "c")]
    queue = [job("gang", nodes=2), job("small", submitted_ns=1)]
    decisions = decide(snapshot(queue, *nodes, running=running))
    assert placed(decisions) == {}
    assert told(decisions)["gang"].endswith(
        "1 of 3 has room now; next in line for a and c, free in 1 min at the latest"
    )


def test_a_job_over_its_time_is_about_to_end():
    running = [on(job("overdue", limit_s=60), "a", started_ns=NOW_NS - 5 * MINUTE_NS)]
    assert told(decide(snapshot([job("j")], node("a", free=0), running=running)))["j"].endswith(
        "next in line for a, free in 0 min at the latest"
    )


def test_room_that_somebody_unknown_holds_is_waited_for_without_a_time():
    assert told(decide(snapshot([job("j")], node("a", free=0))))["j"].endswith("busy; next in line for a")


def test_a_part_of_a_gpu_is_promised_too():
    where = node("a", free=0, shares_free=(0.4,))
    running = [on(job("holder", gpus=0.6, limit_s=600), "a")]
    queue = [job("half", gpus=0.5), job("x", gpus=0.4, submitted_ns=1), job("y", gpus=0.4, submitted_ns=1)]
    assert placed(decide(snapshot(queue, where, running=running))) == {"x": ("a",)}
