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
            "b has 1 GPU and 4 CPU cores; the nearest possible: set resources.cpus to 8",
            True,
        )

    @pytest.mark.parametrize(
        ("gpus", "accelerators", "said"),
        [
            (
                8,
                ["A100"],
                "no node has 8 A100; the nearest is 4 on one node: set resources.gpus to 4, and resources.nodes to 2 "
                "for as many in all",
            ),
            (6, ["A100"], "no node has 6 A100; the nearest is 4 on one node: set resources.gpus to 4"),
            (12, ["A100"], "no node has 12 A100; the nearest is 4 on one node: set resources.gpus to 4"),
            (6, [], "no node has 6 GPUs; the nearest is 4 on one node: set resources.gpus to 4"),
        ],
    )
    def test_more_gpus_than_any_node_has_are_answered_with_the_nearest_possible(self, gpus, accelerators, said):
        where = cluster(node("a", "A100", gpus=4), node("b", "A100", gpus=4), node("c", "L4", gpus=2))
        assert reason(job("j", *accelerators, gpus=gpus), where) == (said, True)

    def test_a_node_that_is_too_small_in_two_ways_is_described_and_nothing_is_suggested(self):
        told, impossible = reason(job("j", cpus=16.0, memory_gb=64.0), cluster(*[node(x, memory=8.0) for x in "abcde"]))
        assert impossible
        assert told.endswith("c has 1 GPU, 8 CPU cores and 8 GB of memory, and 2 more like these")

    def test_more_nodes_than_there_are_of_one_type_are_answered_with_how_many_there_are(self):
        where = cluster(node("a", gpus=4), node("b", gpus=4), node("c", gpus=2), node("d", "L4", gpus=4))
        assert reason(job("j", gpus=4, nodes=3), where) == (
            "the job needs 3 nodes with 4 GPUs and 1 CPU core each, and there are 2 of one accelerator type: "
            "set resources.nodes to 2",
            True,
        )

    def test_real_and_simulated_nodes_of_a_type_are_no_gang(self):
        where = cluster(node("a", simulated=True), node("b", simulated=False))
        assert reason(job("j", nodes=2), where)[1]

    def test_a_label_no_node_has_is_answered_with_those_there_are(self):
        where = cluster(node("a", labels={"zone": "north"}), node("b", "L4", labels={"zone": "south"}))
        asked = {"labels": {"zone": "south"}}
        assert reason(job("j", "H100", **asked), where) == (
            "no node with an H100 has the label zone=south; there is zone=north",
            True,
        )
        assert reason(job("j", labels={"rack": "7", "zone": "west"}), where)[0] == (
            "no node with an accelerator has the labels rack=7 and zone=west; there is zone=north and zone=south"
        )
        assert reason(job("j", labels={"disk": "fast"}), where)[0] == (
            "no node with an accelerator has the label disk=fast; none is labelled so at all"
        )

    def test_more_memory_than_any_node_has_is_impossible_where_nodes_tell(self):
        told = reason(job("j", memory_gb=64.0), cluster(node("a", memory=32.0)))
        assert told == (
            "no node is large enough: the job needs 1 GPU, 1 CPU core and 64 GB of memory, "
            "and a has 1 GPU, 8 CPU cores and 32 GB of memory; "
            "the nearest possible: set resources.memory_gb to 32",
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
            "waits for an H100: the only one is busy; next in line for a",
            False,
        )

    def test_all_that_would_do_are_counted(self):
        where = cluster(node("a", free=0), node("b", "L4", gpus=2, free=0), node("c", "T4"))
        assert reason(job("j", "H100", "L4"), where) == (
            "waits for an H100 or an L4: all 3 are busy; next in line for a",
            False,
        )

    def test_a_job_that_takes_any_accelerator_waits_for_one(self):
        assert reason(job("j"), cluster(node("a", free=0))) == (
            "waits for an accelerator: the only one is busy; next in line for a",
            False,
        )

    def test_a_free_gpu_without_enough_cores_beside_it_is_explained(self):
        assert reason(job("j", cpus=4.0), cluster(node("a", cpus_free=1.5))) == (
            "waits for 1 GPU and 4 CPU cores on one node: a has 1 GPU and 1.5 CPU cores free; next in line for a",
            False,
        )

    def test_too_small_a_node_is_not_among_those_waited_for(self):
        where = cluster(node("a", free=0), node("b", cpus=1))
        assert reason(job("j", cpus=4.0), where) == (
            "waits for an accelerator: the only one is busy; next in line for a",
            False,
        )

    def test_free_memory_a_node_tells_is_waited_for(self):
        where = cluster(node("a", memory=8.0))
        decisions = place([job("first", memory_gb=6.0, cpus=1.0), job("second", gpus=0, memory_gb=6.0)], where)
        assert [placement.job_id for placement in decisions.placements] == ["first"]
        assert decisions.waiting[0].reason == (
            "waits for 1 CPU core and 6 GB of memory on one node: a has 7 CPU cores and 2 GB of memory free; "
            "next in line for a"
        )


class TestWaitingForParts:
    def test_a_part_of_a_gpu_is_waited_for(self):
        where = cluster(node("a", gpus=2, free=0, shares_free=(0.25,)))
        assert reason(job("j", "H100", gpus=0.5), where) == (
            "waits for 0.5 of an H100: all 2 are busy; next in line for a",
            False,
        )

    def test_a_gang_is_told_how_many_nodes_have_room(self):
        where = cluster(node("a", gpus=2), node("b", gpus=2, free=1), node("c", gpus=2, free=0), node("d", "L4"))
        assert reason(job("j", gpus=2, nodes=2), where) == (
            "waits for 2 GPUs and 1 CPU core on each of 2 nodes at once: 1 of 3 has room now; next in line for a and b",
            False,
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
            Waiting(
                job_id="z", reason="waits for an H100 or an L4: all 2 are busy; next in line for b", impossible=False
            ),
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

    def test_a_part_of_a_gpu_comes_from_the_fullest_gpu_that_has_it(self):
        where = cluster(node("a", shares_free=(0.5,), gpus=2, free=0), node("b", shares_free=(0.9,), gpus=2))
        decisions = place([job(name, gpus=0.5) for name in "wxyz"], where)
        assert [one.nodes[0] for one in decisions.placements] == ["id-a", "id-b", "id-b", "id-b"]
        assert decisions.placements[0].why == "any accelerator will do, and a has 0.5 of H100 free"

    def test_three_tenths_of_a_gpu_hold_three_jobs_of_a_tenth(self):
        where = cluster(node("a", gpus=1, free=0, shares_free=(0.3,)))
        assert len(place([job(name, gpus=0.1) for name in "wxyz"], where).placements) == 3

    def test_a_gpu_of_which_a_part_is_used_is_no_whole_one(self):
        assert place([job("j")], cluster(node("a", free=0, shares_free=(0.9,)))).placements == ()

    def test_a_gang_starts_on_as_many_nodes_of_one_type_at_once(self):
        where = cluster(node("a", gpus=2), node("b", "L4", gpus=2), node("c", gpus=4), node("d", "L4", gpus=2))
        decisions = place([job("j", "L4", "H100", gpus=2, nodes=2), job("k", gpus=2, nodes=2)], where)
        assert [(one.nodes, one.accelerator) for one in decisions.placements] == [
            (("id-b", "id-d"), "L4"),
            (("id-a", "id-c"), "H100"),
        ]
        assert decisions.placements[0].why == "first choice of 2: b and d have 2 free L4 each"

    def test_a_gang_takes_the_next_type_when_the_first_has_too_few_nodes_free(self):
        where = cluster(node("a"), node("b", free=0), node("c", "L4"), node("d", "L4"))
        (placement,) = place([job("j", "H100", "L4", nodes=2)], where).placements
        assert placement.nodes == ("id-c", "id-d")
        assert placement.why == "choice 2 of 2: c and d have a free L4 each, and no H100 has room"

    def test_only_nodes_with_the_labels_asked_for_are_taken(self):
        where = cluster(node("a", labels={"zone": "north"}), node("b", labels={"zone": "south", "rack": "7"}))
        asked = {"zone": "south", "rack": "7"}
        assert place([job("j", labels=asked)], where).placements[0].nodes == ("id-b",)


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

    def test_what_is_due_earlier_comes_first_and_what_is_never_due_last(self):
        queue = [
            job("never"),
            job("late", deadline="2026-12-01T18:00:00Z"),
            job("soon", deadline="2026-12-01T18:30:00+02:00"),
        ]
        assert [record.job_id for record in order(queue)] == ["soon", "late", "never"]

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
