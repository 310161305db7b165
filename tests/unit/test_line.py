"""Users take turns, by how much they had lately; a quota holds up its user and nobody else."""

from orchestrator.scheduling.placement import decide
from tests.queueing import job, node, on, placed, quota, snapshot, told


def starts(decisions):
    return [one.job_id for one in decisions.placements]


class TestFairShare:
    def test_who_has_had_most_comes_last_within_a_priority(self):
        queue = [job("a", user="ann"), job("b", user="bob"), job("c", user="cid", priority=1)]
        usage = {"ann": 10.0, "cid": 99.0}
        assert starts(decide(snapshot(queue, node("n", gpus=3), usage=usage))) == ["c", "b", "a"]

    def test_a_user_with_many_jobs_does_not_keep_one_with_few_waiting(self):
        queue = [*[job(f"a{number}", user="ann", submitted_ns=number) for number in range(9)], job("b", user="bob")]
        assert starts(decide(snapshot(queue, node("n", gpus=2)))) == ["a0", "b"]

    def test_what_a_user_runs_now_counts(self):
        queue = [job("a", user="ann"), job("b", user="bob")]
        decisions = decide(snapshot(queue, node("n", gpus=2, free=1), running=[on(job("r", user="ann"), "n")]))
        assert starts(decisions) == ["b"]

    def test_a_large_job_is_charged_for_all_its_gpus(self):
        queue = [job("a1", user="ann", gpus=2), job("a2", user="ann"), *[job(f"b{n}", user="bob") for n in range(3)]]
        assert starts(decide(snapshot(queue, node("n", gpus=6)))) == ["a1", "b0", "b1", "a2", "b2"]

    def test_jobs_without_a_gpu_take_turns_too(self):
        queue = [*[job(f"a{n}", user="ann", gpus=0) for n in range(3)], job("b", user="bob", gpus=0)]
        assert starts(decide(snapshot(queue, node("n", cpus=2.0)))) == ["a0", "b"]

    def test_an_unknown_user_is_one_among_the_others(self):
        queue = [job("a", user=None), job("b", user="bob")]
        assert starts(decide(snapshot(queue, node("n"), usage={None: 5.0}))) == ["b"]


class TestQuota:
    def test_a_job_over_its_users_quota_waits_and_holds_up_nobody(self):
        queue = [job("a1"), job("a2"), job("b", user="bob", submitted_ns=1)]
        decisions = decide(snapshot(queue, node("n", gpus=3), quotas=[quota(1, "ann")]))
        assert sorted(placed(decisions)) == ["a1", "b"]
        assert told(decisions) == {
            "a2": "waits for its quota: user ann may hold 1 GPU at once and holds 1 GPU, and this job needs 1 GPU"
        }

    def test_a_job_that_is_larger_than_its_quota_is_told_that_it_has_to_change(self):
        decisions = decide(snapshot([job("a", gpus=2, nodes=2)], *map(node, "ab"), quotas=[quota(1.5, "ann")]))
        assert told(decisions) == {
            "a": "waits for a larger quota: user ann may hold 1.5 GPUs at once, and this job needs 4 GPUs"
        }
        assert not decisions.waiting[0].impossible

    def test_a_project_is_limited_whoever_its_users_are(self):
        queue = [job("a", project="vision"), job("b", user="bob", project="vision"), job("c", user="cid")]
        decisions = decide(snapshot(queue, node("n", gpus=3), quotas=[quota(1, "vision", "project")]))
        assert sorted(placed(decisions)) == ["a", "c"]

    def test_each_without_a_quota_of_its_own_has_that_of_all_to_itself(self):
        queue = [job(f"{user}{n}", user=user) for user in ("ann", "bob", "cid") for n in range(3)]
        quotas = [quota(1), quota(2, "ann"), quota(None, "cid")]
        decisions = decide(snapshot(queue, node("n", gpus=9), quotas=quotas))
        assert sorted(placed(decisions)) == ["ann0", "ann1", "bob0", "cid0", "cid1", "cid2"]

    def test_parts_of_gpus_are_counted_exactly(self):
        queue = [job(f"a{number}", gpus=0.1) for number in range(4)]
        assert len(placed(decide(snapshot(queue, node("n"), quotas=[quota(0.3)])))) == 3

    def test_what_runs_and_what_is_leaving_is_held(self):
        running = [on(job("r"), "n"), on(job("s"), "n", leaving=True)]
        decisions = decide(snapshot([job("a")], node("n", gpus=4, free=2), running=running, quotas=[quota(2)]))
        assert placed(decisions) == {}

    def test_a_job_over_its_quota_has_no_room_kept(self):
        where = node("n", gpus=2, free=1)
        running = [on(job("r", user="bob", limit_s=60), "n")]
        queue = [job("large", gpus=2, priority=1), job("small", user="bob")]
        assert sorted(placed(decide(snapshot(queue, where, running=running, quotas=[quota(1, "ann")])))) == ["small"]

    def test_a_job_without_a_gpu_needs_no_quota(self):
        assert sorted(placed(decide(snapshot([job("a", gpus=0)], node("n"), quotas=[quota(0)])))) == ["a"]
