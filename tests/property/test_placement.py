"""Whatever the queue and the cluster: nothing is promised twice, nobody is passed over, and everybody is answered."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lifecycle import JobState
from orchestrator.plan import make_plan
from orchestrator.scheduling.placement import decide
from orchestrator.scheduling.room import UNITS, free_room, needs_of
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from tests.queueing import MINUTE_NS, NOW_NS, job, node, on, quota, snapshot

TENTHS = 10
"""CPU cores, GB and parts of GPUs are drawn in tenths, which floats cannot hold, and counted as integers, which can."""

USERS = ("ann", "bob", None)


@st.composite
def jobs(draw, name, *, gang=True):
    memory = draw(st.sampled_from([None, None, None, 30, 200]))
    return job(
        name,
        *draw(st.sampled_from([(), (), ("H100",), ("L4",), ("L4", "H100"), ("H100", "T4", "L4")])),
        user=draw(st.sampled_from(USERS)),
        project=draw(st.sampled_from([None, "vision"])),
        priority=draw(st.integers(-1, 1)),
        preemptible=draw(st.booleans()),
        limit_s=draw(st.sampled_from([None, 60.0, 600.0])),
        deadline=draw(st.sampled_from([None, None, "2026-12-01T18:00:00Z"])),
        submitted_ns=draw(st.integers(0, 3)),
        sequence=draw(st.integers(0, 2)),
        gpus=draw(st.sampled_from([0, 0.1, 0.3, 0.5, 0.7, 1, 1, 1, 2, 3])),
        nodes=draw(st.sampled_from([1, 1, 2, 3])) if gang else 1,
        labels=draw(st.sampled_from([{}, {}, {}, {}, {"zone": "a"}])),
        cpus=draw(st.sampled_from([1, 3, 10, 10, 80])) / TENTHS,
        memory_gb=None if memory is None else memory / TENTHS,
    )


@st.composite
def clusters(draw):
    nodes = []
    for number in range(draw(st.integers(0, 6))):
        gpus, cpus = draw(st.sampled_from([0, 1, 2, 2, 4, 4])), draw(st.integers(5, 160))
        memory = draw(st.none() | st.integers(100, 640))
        nodes.append(
            NodeView(
                node_id=f"id-{number}",
                name=draw(st.sampled_from(["a", "b", f"node-{number}"])),
                accelerator=draw(st.sampled_from([None, "H100", "H100", "L4", "L4", "T4"])) if gpus else None,
                simulated=draw(st.sampled_from([True, True, True, False])),
                gpus_total=gpus,
                gpus_free=gpus,
                cpus_total=cpus / TENTHS,
                cpus_free=cpus / TENTHS,
                memory_free_gb=None if memory is None else memory / TENTHS,
                memory_total_gb=None if memory is None else memory / TENTHS,
                alive=draw(st.sampled_from([True] * 6 + [False])),
                is_head=number == 0,
                labels=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}])),
            )
        )
    return ClusterView(nodes=tuple(nodes))


def started(cluster, running):
    """The view when those jobs run as placed by ``(job, node ids)``."""
    rooms = {node.node_id: free_room(node) for node in cluster.nodes}
    for record in running:
        for node_id in record.attempts[-1].nodes:
            rooms[node_id].take(needs_of(record.spec))
    return ClusterView(
        nodes=tuple(
            replace(
                node,
                gpus_free=rooms[node.node_id].gpus,
                cpus_free=rooms[node.node_id].cpus / UNITS,
                memory_free_gb=None if rooms[node.node_id].memory is None else rooms[node.node_id].memory / UNITS,
                shares_free=tuple(share / UNITS for share in rooms[node.node_id].shares),
            )
            for node in cluster.nodes
        )
    )


@st.composite
def snapshots(draw, *, quotas=True):
    """A queue, and a cluster on which some jobs run: where ``decide`` itself put them, so that they fit."""
    empty = draw(clusters())
    first = [draw(jobs(f"run-{number}")) for number in range(draw(st.integers(0, 14)))]
    places = {one.job_id: one.nodes for one in decide(snapshot(first, *empty.nodes)).placements}
    running = []
    for record in first:
        if record.job_id in places:
            names = [node_id.removeprefix("id-") for node_id in places[record.job_id]]
            started_ns = NOW_NS - draw(st.integers(0, 120)) * 1_000_000_000
            running.append(
                on(record, *names, started_ns=started_ns, leaving=draw(st.sampled_from([False] * 4 + [True])))
            )
    queue = [draw(jobs(f"job-{number}")) for number in range(draw(st.integers(0, 10)))]
    limits = [quota(2, "ann"), quota(1.5, "vision", "project"), quota(3)] if quotas and draw(st.booleans()) else []
    usage = {"ann": draw(st.sampled_from([0.0, 5000.0])), "bob": draw(st.sampled_from([0.0, 90_000.0]))}
    return snapshot(queue, *started(empty, running).nodes, running=running, usage=usage, quotas=limits)


def emptied(cluster):
    """Its nodes with nothing on them."""
    return tuple(
        replace(
            node,
            gpus_free=node.gpus_total,
            cpus_free=node.cpus_total,
            memory_free_gb=node.memory_total_gb,
            shares_free=(),
        )
        for node in cluster.nodes
    )


def of_one_user(given_):
    """The same with one user, whose turn does not change with what others get."""
    queued, running = ([replace(record, user="ann") for record in part] for part in (given_.queued, given_.running))
    return replace(given_, queued=queued, running=running)


def just_started(given_, decisions):
    """The queued jobs that were placed, running there."""
    records = {record.job_id: record for record in given_.queued}
    return [
        on(records[one.job_id], *[node_id.removeprefix("id-") for node_id in one.nodes]) for one in decisions.placements
    ]


@given(snapshots())
def test_every_queued_job_is_answered_exactly_once_and_each_that_waits_has_a_reason(given_):
    decisions = decide(given_)
    answered = [answer.job_id for answer in (*decisions.placements, *decisions.waiting)]
    assert sorted(answered) == sorted(record.job_id for record in given_.queued)
    assert all(answer.reason for answer in (*decisions.waiting, *decisions.preemptions))
    assert all(answer.why for answer in decisions.placements)


@given(snapshots())
def test_no_node_is_given_more_than_it_has_free_and_none_that_does_not_answer(given_):
    rooms = {node.node_id: free_room(node) for node in given_.cluster.alive}
    needs = {record.job_id: needs_of(record.spec) for record in given_.queued}
    for placement in decide(given_).placements:
        for node_id in placement.nodes:
            assert rooms[node_id].fits(needs[placement.job_id])
            rooms[node_id].take(needs[placement.job_id])
    for one in given_.cluster.alive:
        room, before = rooms[one.node_id], free_room(one)
        assert room.gpus >= 0
        assert room.cpus >= 0
        assert room.memory is None or room.memory >= 0
        assert all(0 < share < UNITS for share in room.shares)
        assert room.gpus * UNITS + sum(room.shares) <= before.gpus * UNITS + sum(before.shares)


@given(snapshots())
def test_a_gang_has_as_many_different_nodes_of_one_type_as_it_needs(given_):
    nodes = {node.node_id: node for node in given_.cluster.nodes}
    specs = {record.job_id: record.spec.resources for record in given_.queued}
    for placement in decide(given_).placements:
        here = [nodes[node_id] for node_id in placement.nodes]
        assert len(set(placement.nodes)) == len(placement.nodes) == specs[placement.job_id].nodes
        assert {node.accelerator for node in here} == {placement.accelerator}
        assert len({node.simulated for node in here}) == 1


@given(snapshots())
def test_a_job_gets_only_an_accelerator_and_labels_it_asked_for(given_):
    nodes = {node.node_id: node for node in given_.cluster.nodes}
    specs = {record.job_id: record.spec.resources for record in given_.queued}
    for placement in decide(given_).placements:
        asked = specs[placement.job_id]
        assert not asked.accelerators or placement.accelerator in asked.accelerators
        for node_id in placement.nodes:
            assert asked.labels.items() <= nodes[node_id].labels.items()


@given(snapshots(), st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_anything_is_given_in(given_, random):
    parts = [list(given_.queued), list(given_.running), list(given_.cluster.nodes), list(given_.quotas)]
    for part in parts:
        random.shuffle(part)
    queued, running, nodes, quotas = parts
    shuffled = replace(given_, queued=queued, running=running, cluster=ClusterView(nodes=tuple(nodes)), quotas=quotas)
    assert decide(shuffled) == decide(given_)


@given(snapshots(quotas=False))
def test_nobody_waits_for_what_a_lower_priority_with_the_same_needs_got(given_):
    decisions = decide(given_)
    records = {record.job_id: record for record in given_.queued}
    for waiting in decisions.waiting:
        waits = records[waiting.job_id].spec
        for placement in decisions.placements:
            got = records[placement.job_id].spec
            same = (needs_of(got), got.schedule.time_limit_s) == (needs_of(waits), waits.schedule.time_limit_s)
            assert not same or got.schedule.priority >= waits.schedule.priority


@given(snapshots())
def test_nobody_holds_more_than_their_quota_unless_they_did_before(given_):
    held, before = Counter(), Counter()
    for record in given_.running:
        before[record.user] += needs_of(record.spec).gpu_parts
        before[record.spec.accounting.project] += needs_of(record.spec).gpu_parts
    held.update(before)
    records = {record.job_id: record for record in given_.queued}
    for placement in decide(given_).placements:
        record = records[placement.job_id]
        for name in (record.user, record.spec.accounting.project):
            held[name] += needs_of(record.spec).gpu_parts
    for limit in given_.quotas:
        own = [limit.name] if limit.name != "*" else ["bob"]
        for name in own:
            assert held[name] <= max(before[name], round(limit.gpus * UNITS))


@given(snapshots())
def test_only_running_preemptible_jobs_of_lower_priority_leave_and_each_once(given_):
    running = {record.job_id: record for record in given_.running}
    queued = {record.job_id: record for record in given_.queued}
    decisions = decide(given_)
    waiting = {answer.job_id for answer in decisions.waiting}
    assert len({one.job_id for one in decisions.preemptions}) == len(decisions.preemptions)
    for one in decisions.preemptions:
        victim, winner = running[one.job_id], queued[one.for_job]
        assert victim.state is JobState.RUNNING
        assert victim.spec.schedule.preemptible
        assert victim.spec.schedule.priority < winner.spec.schedule.priority
        assert one.for_job in waiting


@given(snapshots(quotas=False).map(of_one_user))
def test_whoever_leaves_makes_room_for_the_job_it_leaves_for(given_):
    """When all that were asked have left, the jobs they left for start, and nobody else is asked for them."""
    decisions = decide(given_)
    winners = {one.for_job for one in decisions.preemptions}
    gone = {one.job_id for one in decisions.preemptions}
    gone |= {record.job_id for record in given_.running if record.state is JobState.STOPPING}
    start = {one.job_id: one.nodes for one in decisions.placements}
    stay = [record for record in given_.running if record.job_id not in gone]
    stay += just_started(given_, decisions)
    empty = emptied(given_.cluster)
    after = replace(
        given_,
        cluster=started(ClusterView(nodes=empty), stay),
        running=stay,
        queued=[record for record in given_.queued if record.job_id not in start],
    )
    again = decide(after)
    assert winners <= {one.job_id for one in again.placements}


@given(snapshots(quotas=False).map(of_one_user))
def test_while_they_leave_nobody_else_is_asked_for_the_same_job(given_):
    decisions = decide(given_)
    gone = {one.job_id for one in decisions.preemptions}
    start = {one.job_id: one.nodes for one in decisions.placements}
    running = [replace(one, state=JobState.STOPPING) if one.job_id in gone else one for one in given_.running]
    more = just_started(given_, decisions)
    after = replace(
        given_,
        cluster=started(given_.cluster, more),
        running=[*running, *more],
        queued=[record for record in given_.queued if record.job_id not in start],
    )
    winners = {one.for_job for one in decisions.preemptions}
    assert not winners & {one.for_job for one in decide(after).preemptions}


@given(snapshots(quotas=False))
def test_a_job_is_impossible_exactly_when_it_alone_has_no_place_on_the_empty_cluster(given_):
    empty = emptied(given_.cluster)
    records = {record.job_id: record for record in given_.queued}
    for waiting in decide(given_).waiting:
        alone = decide(snapshot([records[waiting.job_id]], *empty))
        assert waiting.impossible == (alone.placements == ())


@given(snapshots(quotas=False))
def test_a_plan_starts_now_what_the_controller_would_start_now_and_all_else_it_can_later(given_):
    specs = [record.spec for record in given_.queued]
    plan = make_plan(specs, given_.cluster)
    records = [
        replace(record, user=None, submitted_ns=0, sequence=number) for number, record in enumerate(given_.queued)
    ]
    decisions = decide(snapshot(records, *given_.cluster.nodes))
    names = {node.node_id: node.name for node in given_.cluster.nodes}
    assert {(one.job_id, one.node, one.why) for one in plan.jobs if one.wave == 1} == {
        (one.job_id, ", ".join(names[node_id] for node_id in one.nodes), one.why) for one in decisions.placements
    }
    assert {one.job_id: one.waits or one.impossible for one in plan.jobs if one.wave != 1} == {
        waiting.job_id: waiting.reason for waiting in decisions.waiting
    }
    assert {one.job_id for one in plan.impossible} == {one.job_id for one in plan.jobs if one.wave is None}


@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([None, 60, 300])), max_size=40))
def test_a_stream_of_small_jobs_never_starves_a_gang(stream):
    """Every minute some small jobs come that are considered after the gang; it starts once what ran before it has."""
    nodes = [node(name, gpus=2) for name in "abc"]
    gang, longest = job("gang", gpus=2, nodes=2), 5
    ends = {}  # job id -> (record, minute)
    for number, name in enumerate("aabbcc"):
        first = job(f"first-{number}")
        ends[first.job_id] = on(first, name, started_ns=NOW_NS), longest
    waiting = [gang]
    for minute in range(2 * longest + 2):
        now_ns = NOW_NS + minute * MINUTE_NS
        ends = {job_id: (record, end) for job_id, (record, end) in ends.items() if end > minute}
        for number, (gpus, limit_s) in enumerate(stream):
            if number % (2 * longest + 2) == minute:
                waiting.append(job(f"small-{number}", gpus=gpus, limit_s=limit_s, submitted_ns=1 + number))
        running = [record for record, _ in ends.values()]
        view = started(ClusterView(nodes=tuple(nodes)), running)
        decisions = decide(snapshot(waiting, *view.nodes, running=running, now_ns=now_ns))
        for one in just_started(snapshot(waiting), decisions):
            lasts = longest if one.spec.schedule.time_limit_s is None else one.spec.schedule.time_limit_s // 60
            attempt = replace(one.attempts[0], started_ns=now_ns)
            ends[one.job_id] = replace(one, attempts=(attempt,)), minute + lasts
        gone = {one.job_id for one in decisions.placements}
        waiting = [record for record in waiting if record.job_id not in gone]
        if gang not in waiting:
            break
    # All that it can have to wait for ran before it came, or was let in because its limit ends in time.
    assert gang not in waiting
    assert minute <= longest + 5


@given(clusters())
def test_a_cluster_written_as_json_is_read_back_equal(cluster):
    assert ClusterView.from_json(cluster.to_json()) == cluster


@given(snapshots())
def test_a_busy_cluster_written_as_json_is_read_back_equal(given_):
    assert ClusterView.from_json(given_.cluster.to_json()) == given_.cluster
