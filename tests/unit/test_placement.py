"""Every queued job is told where it starts, or what it waits for, in words its owner can act on."""

import pytest

from orchestrator.scheduling.placement import Placement, Waiting, decide, order
from orchestrator.scheduling.snapshot import ACCELERATOR_TYPES, ClusterView
from tests.queueing import job, node, snapshot


def cluster(*nodes):
    return ClusterView(nodes=nodes)


def place(queue, where):
    return decide(snapshot(queue, *where.nodes))


def reason(one, where):
    """What the only, waiting, job is told, and whether it waits in vain."""
    decisions = place([one], where)
    assert decisions.placements == ()
    (waiting,) = decisions.waiting
    assert waiting.job_id == one.job_id
    return waiting.reason, waiting.impossible


class TestWaitingInVain:
    def test_a_type_no_node_has_is_answered_with_what_there_is(self):
        told = reason(job("j", "A100-80GB"), cluster(node("a", "H100"), node("b", "L4")))
        assert told == ("no node has an A100-80GB; this cluster has: H100 x1, L4 x1", True)

    def test_all_types_a_job_would_take_are_named(self):
        told = reason(job("j", "A100-80GB", "T4"), cluster(node("a", "H100", gpus=4), node("b", "H100", gpus=2)))
        assert told == ("no node has an A100-80GB or a T4; this cluster has: H100 x6", True)

    def test_a_cluster_without_accelerators_says_so(self):
        told = reason(job("j"), cluster(node("a", None, gpus=0)))
        assert told == ("no node has an accelerator; this cluster has: no accelerator", True)

    def test_accelerators_of_no_known_type_are_counted_as_such(self):
        told = reason(job("j", "T4"), cluster(node("a", None, gpus=2)))
        assert told == ("no node has a T4; this cluster has: GPU of no known type x2", True)

    def test_a_job_larger_than_every_node_is_told_their_sizes(self):
        told = reason(job("j", "H100", cpus=16.0), cluster(node("a", cpus=8), node("b", cpus=4)))
        assert told == (
            "no node is large enough: the job needs 1 GPU and 16 CPU cores, and a has 1 GPU and 8 CPU cores, "
            "b has 1 GPU and 4 CPU cores",
            True,
        )

    def test_more_gpus_than_any_node_has_are_not_put_together_from_two(self):
        told, impossible = reason(job("j", gpus=2), cluster(node("a"), node("b"), node("c"), node("d"), node("e")))
        assert impossible
        assert told.endswith("c has 1 GPU and 8 CPU cores, and 2 more like these")

    def test_more_memory_than_any_node_has_is_impossible_where_nodes_tell(self):
        told = reason(job("j", memory_gb=64.0), cluster(node("a", memory=32.0)))
        assert told == (
            "no node is large enough: the job needs 1 GPU, 1 CPU core and 64 GB of memory, "
            "and a has 1 GPU, 8 CPU cores and 32 GB of memory",
            True,
        )

    def test_a_node_that_does_not_answer_is_no_place_but_is_named(self):
        told = reason(job("j", "A40"), cluster(node("a", "A40", alive=False), node("b", "L4")))
        assert told == (
            "no node has an A40; this cluster has: L4 x1; a could run it but does not answer",
            True,
        )

    def test_a_cluster_where_nothing_answers_says_so(self):
        assert reason(job("j"), cluster()) == ("no node of the cluster answers", True)
        told = reason(job("j"), cluster(node("a", alive=False)))
        assert told == ("no node of the cluster answers; a could run it but does not answer", True)


class TestWaitingForRoom:
    def test_a_busy_only_one_is_waited_for(self):
        assert reason(job("j", "H100"), cluster(node("a", free=0))) == (
            "waits for an H100: the only one is busy",
            False,
        )

    def test_all_that_would_do_are_counted(self):
        where = cluster(node("a", free=0), node("b", "L4", gpus=2, free=0), node("c", "T4"))
        assert reason(job("j", "H100", "L4"), where) == ("waits for an H100 or an L4: all 3 are busy", False)

    def test_a_job_that_takes_any_accelerator_waits_for_one(self):
        assert reason(job("j"), cluster(node("a", free=0))) == (
            "waits for an accelerator: the only one is busy",
            False,
        )

    def test_a_free_gpu_without_enough_cores_beside_it_is_explained(self):
        assert reason(job("j", cpus=4.0), cluster(node("a", cpus_free=1.5))) == (
            "waits for 1 GPU and 4 CPU cores on one node: a has 1 GPU and 1.5 CPU cores free",
            False,
        )

    def test_too_small_a_node_is_not_among_those_waited_for(self):
        where = cluster(node("a", free=0), node("b", cpus=1))
        assert reason(job("j", cpus=4.0), where) == ("waits for an accelerator: the only one is busy", False)

    def test_free_memory_a_node_tells_is_waited_for(self):
        where = cluster(node("a", memory=8.0))
        decisions = place([job("first", memory_gb=6.0, cpus=1.0), job("second", gpus=0, memory_gb=6.0)], where)
        assert [placement.job_id for placement in decisions.placements] == ["first"]
        assert decisions.waiting[0].reason == (
            "waits for 1 CPU core and 6 GB of memory on one node: a has 7 CPU cores and 2 GB of memory free"
        )


class TestPlaces:
    def test_the_first_type_of_the_preference_is_taken_while_it_lasts_then_the_next(self):
        where = cluster(node("a", "L4"), node("b", "H100"))
        decisions = place([job(name, "H100", "L4", sequence=at) for at, name in enumerate(["x", "y", "z"])], where)
        assert decisions.placements == (
            Placement(job_id="x", nodes=("id-b",), accelerator="H100", why="first choice of 2: b has a free H100"),
            Placement(
                job_id="y",
                nodes=("id-a",),
                accelerator="L4",
                why="choice 2 of 2: a has a free L4, and no H100 has room",
            ),
        )
        assert decisions.waiting == (
            Waiting(job_id="z", reason="waits for an H100 or an L4: all 2 are busy", impossible=False),
        )

    @pytest.mark.parametrize(
        ("asked", "why"),
        [((), "any accelerator will do, and a has a free H100"), (("H100",), "a has a free H100")],
    )
    def test_the_reason_says_what_was_asked_for(self, asked, why):
        assert place([job("j", *asked)], cluster(node("a"))).placements[0].why == why

    def test_a_real_accelerator_comes_before_a_simulated_one(self):
        where = cluster(node("a", simulated=True), node("b", simulated=False))
        assert place([job("j")], where).placements[0].nodes == ("id-b",)

    def test_the_head_is_used_last_among_equals(self):
        where = cluster(node("a", is_head=True), node("b"))
        assert place([job("j")], where).placements[0].nodes == ("id-b",)

    def test_the_fullest_node_is_used_first_so_that_larger_places_stay_whole(self):
        where = cluster(node("a", gpus=4), node("b", gpus=4, free=1))
        assert place([job("j")], where).placements[0].nodes == ("id-b",)

    def test_a_job_without_a_gpu_keeps_off_the_nodes_that_have_one(self):
        where = cluster(node("a"), node("b", None, gpus=0, is_head=True))
        (placement,) = place([job("j", gpus=0)], where).placements
        assert (placement.nodes, placement.accelerator) == (("id-b",), None)
        assert placement.why == "needs no GPU, and b has the CPU cores"

    def test_three_tenths_of_a_core_hold_three_jobs_of_a_tenth(self):
        where = cluster(node("a", gpus=4, cpus=1.0, cpus_free=0.3))
        decisions = place([job(name, cpus=0.1) for name in "wxyz"], where)
        assert len(decisions.placements) == 3

    def test_memory_is_not_held_against_a_node_that_does_not_tell_it(self):
        assert len(place([job("j", memory_gb=512.0)], cluster(node("a"))).placements) == 1

    def test_a_job_that_fits_nowhere_now_does_not_hold_up_the_next(self):
        where = cluster(node("a", "H100", free=0), node("b", "L4"))
        decisions = place([job("x", "H100", priority=9), job("y", "L4")], where)
        assert [placement.job_id for placement in decisions.placements] == ["y"]

    def test_an_empty_queue_has_no_answers(self):
        decisions = place([], cluster(node("a")))
        assert (decisions.placements, decisions.waiting) == ((), ())


class TestOrder:
    def test_priority_comes_before_time_and_time_before_the_place_in_a_submission(self):
        queue = [
            job("late", submitted_ns=2),
            job("second", submitted_ns=1, sequence=1),
            job("first", submitted_ns=1, sequence=0),
            job("urgent", submitted_ns=3, priority=1),
            job("idle", submitted_ns=0, priority=-1),
        ]
        assert [record.job_id for record in order(queue)] == ["urgent", "first", "second", "late", "idle"]

    def test_jobs_of_one_instant_are_told_apart_by_id(self):
        assert [record.job_id for record in order([job("b"), job("a")])] == ["a", "b"]


class TestSnapshot:
    def test_the_types_of_a_cluster_are_those_of_live_nodes_with_gpus_by_name(self):
        where = cluster(
            node("a", "L4"),
            node("b", "H100"),
            node("c", "L4"),
            node("d", "T4", alive=False),
            node("e", "A40", gpus=0),
            node("f", None, gpus=2),
        )
        assert where.accelerator_types == ("H100", "L4")
        assert dict(where.gpus_by_type) == {"L4": 2, "H100": 1, None: 2}

    def test_the_types_a_manifest_may_name_have_different_names(self):
        assert len(set(ACCELERATOR_TYPES)) == len(ACCELERATOR_TYPES)
