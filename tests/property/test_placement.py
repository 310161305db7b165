"""Whatever the queue and the cluster, nothing is promised twice and nobody is passed over."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.plan import make_plan
from orchestrator.scheduling.placement import order, place
from orchestrator.scheduling.room import needs_of
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec

TYPES = ("H100", "L4", "T4")
TENTHS = 10
"""CPU cores and GB are drawn in tenths, which floats cannot hold, and counted in tenths, which integers can."""


@st.composite
def clusters(draw):
    nodes = []
    for number in range(draw(st.integers(0, 5))):
        gpus, cpus = draw(st.integers(0, 4)), draw(st.integers(1, 160))
        memory = draw(st.none() | st.integers(1, 640))
        memory_free = None if memory is None else draw(st.integers(0, memory))
        nodes.append(
            NodeView(
                node_id=f"id-{number}",
                name=draw(st.sampled_from(["a", "b", f"node-{number}"])),
                accelerator=draw(st.none() | st.sampled_from(TYPES)) if gpus else None,
                simulated=draw(st.booleans()),
                gpus_total=gpus,
                gpus_free=draw(st.integers(0, gpus)),
                cpus_total=cpus / TENTHS,
                cpus_free=draw(st.integers(0, cpus)) / TENTHS,
                memory_free_gb=None if memory_free is None else memory_free / TENTHS,
                memory_total_gb=None if memory is None else memory / TENTHS,
                alive=draw(st.sampled_from([True, True, True, False])),
                is_head=number == 0,
            )
        )
    return ClusterView(nodes=tuple(nodes))


@st.composite
def queues(draw):
    queue = []
    for number in range(draw(st.integers(0, 12))):
        memory = draw(st.none() | st.integers(1, 200))
        spec = JobSpec(
            job_id=f"job-{number}",
            task="digits",
            model="tiny/vit",
            resources={
                "gpus": draw(st.sampled_from([0, 1, 1, 1, 2])),
                "accelerators": tuple(draw(st.lists(st.sampled_from(TYPES), unique=True, max_size=3))),
                "cpus": draw(st.integers(1, 80)) / TENTHS,
                "memory_gb": None if memory is None else memory / TENTHS,
            },
            schedule={"priority": draw(st.integers(-1, 1))},
        )
        queue.append(
            JobRecord(
                spec=spec,
                run_id="run",
                sequence=number,
                state=JobState.QUEUED,
                reason=None,
                submitted_ns=draw(st.integers(0, 2)),
            )
        )
    return queue


def tenths(amount):
    return round(amount * TENTHS)


@given(queues(), clusters())
def test_every_job_is_answered_exactly_once_in_the_order_of_the_queue(queue, cluster):
    decisions = place(queue, cluster)
    ranks = {record.job_id: rank for rank, record in enumerate(order(queue))}
    answered = [answer.job_id for answer in (*decisions.placements, *decisions.waiting)]
    assert sorted(answered) == sorted(ranks)
    for answers in (decisions.placements, decisions.waiting):
        told = [ranks[answer.job_id] for answer in answers]
        assert told == sorted(told)


@given(queues(), clusters())
def test_no_node_is_promised_more_than_it_has_free_and_none_that_does_not_answer(queue, cluster):
    specs = {record.job_id: record.spec.resources for record in queue}
    taken = {one.node_id: [] for one in cluster.nodes if one.alive}
    for placement in place(queue, cluster).placements:
        taken[placement.node_id].append(specs[placement.job_id])
    for one in cluster.nodes:
        here = taken.get(one.node_id, [])
        assert sum(job.gpus for job in here) <= one.gpus_free
        assert sum(tenths(job.cpus) for job in here) <= tenths(one.cpus_free)
        if one.memory_free_gb is not None:
            assert sum(tenths(job.memory_gb or 0) for job in here) <= tenths(one.memory_free_gb)


@given(queues(), clusters())
def test_a_job_gets_only_an_accelerator_it_asked_for(queue, cluster):
    specs = {record.job_id: record.spec.resources for record in queue}
    nodes = {one.node_id: one for one in cluster.nodes}
    for placement in place(queue, cluster).placements:
        asked = specs[placement.job_id].accelerators
        assert not asked or placement.accelerator in asked
        assert placement.accelerator == nodes[placement.node_id].accelerator


@given(queues(), clusters(), st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_jobs_and_nodes_are_given_in(queue, cluster, random):
    shuffled, nodes = list(queue), list(cluster.nodes)
    random.shuffle(shuffled)
    random.shuffle(nodes)
    assert place(shuffled, ClusterView(nodes=tuple(nodes))) == place(queue, cluster)


@given(queues(), clusters())
def test_nobody_waits_for_what_someone_behind_with_the_same_needs_got(queue, cluster):
    decisions = place(queue, cluster)
    ranks = {record.job_id: rank for rank, record in enumerate(order(queue))}
    needs = {record.job_id: needs_of(record.spec) for record in queue}
    for waiting in decisions.waiting:
        for placement in decisions.placements:
            same = needs[placement.job_id] == needs[waiting.job_id]
            assert not same or ranks[placement.job_id] < ranks[waiting.job_id]


@given(queues(), clusters())
def test_a_job_is_impossible_exactly_when_it_alone_has_no_place_on_the_empty_cluster(queue, cluster):
    empty = ClusterView(
        nodes=tuple(
            NodeView(
                node_id=one.node_id,
                name=one.name,
                accelerator=one.accelerator,
                simulated=one.simulated,
                gpus_total=one.gpus_total,
                gpus_free=one.gpus_total,
                cpus_total=one.cpus_total,
                cpus_free=one.cpus_total,
                memory_free_gb=one.memory_total_gb,
                memory_total_gb=one.memory_total_gb,
                alive=one.alive,
                is_head=one.is_head,
            )
            for one in cluster.nodes
        )
    )
    records = {record.job_id: record for record in queue}
    for waiting in place(queue, cluster).waiting:
        alone = place([records[waiting.job_id]], empty)
        assert waiting.impossible == (alone.placements == ())


@given(queues(), clusters())
def test_a_plan_starts_now_what_the_controller_would_start_now_and_all_else_it_can_later(queue, cluster):
    specs = [record.spec for record in queue]
    plan = make_plan(specs, cluster)
    records = [
        JobRecord(spec=spec, run_id="r", sequence=at, state=JobState.QUEUED, reason=None, submitted_ns=0)
        for at, spec in enumerate(specs)
    ]
    decisions = place(records, cluster)
    names = {one.node_id: one.name for one in cluster.nodes}
    assert {(job.job_id, job.node, job.why) for job in plan.jobs if job.wave == 1} == {
        (placement.job_id, names[placement.node_id], placement.why) for placement in decisions.placements
    }
    assert {job.job_id: job.waits or job.impossible for job in plan.jobs if job.wave != 1} == {
        waiting.job_id: waiting.reason for waiting in decisions.waiting
    }
    assert {job.job_id for job in plan.impossible} == {job.job_id for job in plan.jobs if job.wave is None}
