"""A plan says what would run where and why, what has to end first, and what it cannot know."""

import json

from orchestrator.plan import ENERGY_UNKNOWN, LENGTHS_UNKNOWN, SIMULATED, PlannedJob, make_plan
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec


def node(name, accelerator="H100", *, gpus=1, free=None, simulated=False, cpus=8.0, memory=None, memory_total=None):
    return NodeView(
        node_id=f"id-{name}",
        name=name,
        accelerator=accelerator,
        simulated=simulated,
        gpus_total=gpus,
        gpus_free=gpus if free is None else free,
        cpus_total=cpus,
        cpus_free=cpus,
        memory_free_gb=memory,
        memory_total_gb=memory_total,
    )


def job(job_id, *accelerators, priority=0, **resources):
    return JobSpec(
        job_id=job_id,
        task="digits",
        model="tiny/vit",
        resources={"accelerators": accelerators, **resources},
        schedule={"priority": priority},
    )


def test_a_job_no_node_could_run_is_told_why_and_holds_up_no_other():
    plan = make_plan([job("x", "T4"), job("y")], ClusterView(nodes=(node("a"),)))
    assert [planned.job_id for planned in plan.impossible] == ["x"]
    assert plan.jobs[0].impossible == "no node has a T4; this cluster has: H100 x1"
    assert (plan.jobs[0].node, plan.jobs[0].wave, plan.jobs[0].waits) == (None, None, None)
    assert (plan.jobs[1].node, plan.jobs[1].wave) == ("a", 1)


def test_a_cluster_that_can_run_nothing_has_a_plan_of_no_waves():
    plan = make_plan([job("x"), job("y")], ClusterView(nodes=()))
    assert plan.waves == 0
    assert len(plan.impossible) == 2
    assert plan.notes == ()


def test_no_jobs_make_an_empty_plan():
    plan = make_plan([], ClusterView(nodes=(node("a"),)))
    assert (plan.jobs, plan.waves, plan.notes) == ((), 0, ())


def test_a_plan_says_whose_code_and_pickles_would_run():
    trusts = {"a/x": {"remote_code": True}, "a/y": {"pickle": True, "remote_code": True}, "a/z": {}}
    jobs = [JobSpec(job_id=model[-1], task="digits", model=model, trust=trust) for model, trust in trusts.items()]
    plan = make_plan(jobs, ClusterView(nodes=(node("a", gpus=3),)))
    assert plan.notes == (
        "trust.remote_code: code that comes with a/x, a/y runs on the node, with the job's rights.",
        "trust.pickle: weights of a/y may be read from a pickle, which can run code on the node.",
    )


def test_a_planned_job_says_everything_there_is_to_say():
    spec = JobSpec(job_id="x", task="digits", model="tiny/vit", adapter={"method": "lora", "rank": 4}, seed=3)
    plan = make_plan([spec], ClusterView(nodes=(node("a", simulated=True),)))
    assert plan.jobs == (
        PlannedJob(
            order=1,
            job_id="x",
            model="tiny/vit",
            adapter="lora r=4",
            seed=3,
            accelerator="H100",
            node="a",
            simulated=True,
            wave=1,
            why="any accelerator will do, and a has a free H100",
            waits=None,
            waits_for=None,
            impossible=None,
            predicted_energy_kwh=None,
            predicted_energy_reason=ENERGY_UNKNOWN,
        ),
    )
    assert plan.notes == (SIMULATED,)


def test_jobs_start_in_waves_and_name_the_job_before_them_on_their_node():
    cluster = ClusterView(nodes=(node("a", "H100"), node("b", "L4")))
    plan = make_plan([job("v", "H100"), job("w", "H100"), job("x", "L4"), job("y", "H100"), job("z", "L4")], cluster)
    assert [(planned.job_id, planned.wave, planned.node, planned.waits_for) for planned in plan.jobs] == [
        ("v", 1, "a", None),
        ("w", 2, "a", "v"),
        ("x", 1, "b", None),
        ("y", 3, "a", "w"),
        ("z", 2, "b", "x"),
    ]
    assert plan.jobs[1].waits == "waits for an H100: the only one is busy; next in line for a"
    assert plan.waves == 3
    assert plan.notes == (LENGTHS_UNKNOWN,)


def test_the_jobs_of_a_node_with_several_gpus_follow_each_other_in_turn():
    plan = make_plan([job(name) for name in "uvwxy"], ClusterView(nodes=(node("a", gpus=2),)))
    assert [(planned.wave, planned.waits_for) for planned in plan.jobs] == [
        (1, None),
        (1, None),
        (2, "u"),
        (2, "v"),
        (3, "w"),
    ]


def test_many_small_jobs_may_follow_one_large_one():
    cluster = ClusterView(nodes=(node("a", gpus=2),))
    plan = make_plan([job("large", gpus=2), job("x"), job("y")], cluster)
    assert [(planned.wave, planned.waits_for) for planned in plan.jobs] == [(1, None), (2, "large"), (2, "large")]


def test_what_others_hold_now_is_waited_for_and_then_free():
    plan = make_plan([job("x")], ClusterView(nodes=(node("a", free=0),)))
    (planned,) = plan.jobs
    assert (planned.wave, planned.node, planned.waits_for) == (2, "a", None)
    assert planned.waits == "waits for an accelerator: the only one is busy; next in line for a"


def test_memory_that_is_taken_on_a_node_that_does_not_tell_its_whole_ends_no_plan():
    plan = make_plan([job("x", memory_gb=8.0)], ClusterView(nodes=(node("a", memory=2.0),)))
    assert (plan.jobs[0].wave, plan.waves) == (2, 2)


def test_higher_priority_comes_first_whatever_the_order_given():
    plan = make_plan([job("low"), job("high", priority=1)], ClusterView(nodes=(node("a"),)))
    assert [(planned.order, planned.job_id, planned.wave) for planned in plan.jobs] == [(1, "high", 1), (2, "low", 2)]


def test_jobs_without_a_gpu_fill_the_cores():
    cluster = ClusterView(nodes=(node("a", None, gpus=0, cpus=2.0),))
    plan = make_plan([job(name, gpus=0) for name in "xyz"], cluster)
    assert [planned.wave for planned in plan.jobs] == [1, 1, 2]


def test_a_plan_of_very_many_jobs_is_made_in_one_go():
    plan = make_plan([job(f"job-{number}") for number in range(3000)], ClusterView(nodes=(node("a"),)))
    assert plan.waves == 3000
    assert plan.jobs[-1].waits_for == "job-2998"


def test_a_plan_is_json_with_nothing_left_out():
    plan = make_plan([job("x"), job("y", "T4")], ClusterView(nodes=(node("a", simulated=True),)))
    told = json.loads(json.dumps(plan.as_dict()))
    assert list(told) == ["jobs", "waves", "notes"]
    assert [one["job_id"] for one in told["jobs"]] == ["x", "y"]
    assert list(told["jobs"][0]) == list(PlannedJob.__dataclass_fields__)
    assert told["jobs"][0]["predicted_energy_kwh"] is None
    assert told["notes"] == [SIMULATED]


def test_a_job_comes_in_a_wave_after_those_it_needs_and_waits_for_them():
    base = job("base")
    tuned = JobSpec(job_id="tuned", task="digits", model="tiny/vit", needs=("base",))
    judged = JobSpec(job_id="judged", task="digits", model="tiny/vit", needs=("tuned", "base"))
    plan = make_plan([judged, tuned, base], ClusterView(nodes=(node("a", gpus=8),)))
    assert {planned.job_id: (planned.wave, planned.waits) for planned in plan.jobs} == {
        "judged": (3, "waits for what it needs: tuned, base"),
        "tuned": (2, "waits for what it needs: base"),
        "base": (1, None),
    }
    assert plan.waves == 3


def test_a_job_that_needs_one_that_can_never_run_can_never_run():
    needy = [JobSpec(job_id=x, task="digits", model="tiny/vit", needs=(y,)) for x, y in (("b", "a"), ("c", "b"))]
    plan = make_plan([job("a", "T4"), *needy], ClusterView(nodes=(node("n"),)))
    assert {planned.job_id: planned.impossible for planned in plan.jobs} == {
        "a": "no node has a T4; this cluster has: H100 x1",
        "b": "needs a, which can never run",
        "c": "needs b, which can never run",
    }


def test_a_job_that_has_what_it_needs_and_can_never_run_ends_no_plan():
    never = JobSpec(job_id="b", task="digits", model="tiny/vit", needs=("a",), resources={"gpus": 9})
    plan = make_plan([job("a"), never], ClusterView(nodes=(node("n"),)))
    assert [planned.job_id for planned in plan.impossible] == ["b"]


def test_what_is_needed_of_an_earlier_submission_is_not_waited_for():
    spec = JobSpec(job_id="b", task="digits", model="tiny/vit", needs=("elsewhere",))
    assert make_plan([spec], ClusterView(nodes=(node("n"),))).jobs[0].wave == 1


def test_a_gang_is_planned_on_all_its_nodes():
    cluster = ClusterView(nodes=(node("a", gpus=2), node("b", gpus=2)))
    plan = make_plan([job("small"), job("gang", gpus=2, nodes=2)], cluster)
    assert [(one.job_id, one.wave, one.node, one.waits_for) for one in plan.jobs] == [
        ("small", 1, "a", None),
        ("gang", 2, "a, b", "small"),
    ]


def test_parts_of_a_gpu_are_planned_side_by_side():
    plan = make_plan([job(name, gpus=0.5) for name in "xyz"], ClusterView(nodes=(node("a"),)))
    assert [one.wave for one in plan.jobs] == [1, 1, 2]
    assert plan.jobs[0].why == "any accelerator will do, and a has 0.5 of H100 free"
