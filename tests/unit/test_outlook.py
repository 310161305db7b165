"""Why each job waits, as people are told."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState
from orchestrator.quotas import Quota
from orchestrator.scheduling.outlook import outlook
from orchestrator.scheduling.snapshot import ClusterView
from tests.queues import node, spec
from workers.contract import JobSpec
from workers.units import NS_PER_S

ONE = ClusterView(nodes=(node("a"),))


def job(made: JobSpec, state: JobState = JobState.QUEUED, *, sequence: int = 0) -> JobRecord:
    place = AttemptRecord(
        number=1,
        state=AttemptState.RUNNING,
        reason=None,
        nodes=("id-a",),
        accelerator="H100",
        started_ns=0,
        ended_ns=None,
    )
    return JobRecord(
        spec=made,
        run_id="r",
        sequence=sequence,
        state=state,
        reason=None,
        submitted_ns=0,
        attempts=(place,) if state.holds_place else (),
        user="ada",
    )


def test_a_job_that_needs_another_names_it_and_is_not_decided_about() -> None:
    jobs = [job(spec("a"), JobState.RUNNING), job(spec("b", needs=["a"]))]
    found = outlook(jobs, {"a": JobState.RUNNING}, cluster=ONE, now_ns=0)
    assert found.reasons == {"b": "waits for a, which runs"}
    assert (found.decisions.placements, found.decisions.waiting) == ((), ())


def test_a_pause_says_how_long_and_after_what() -> None:
    failed = replace(job(spec()), ready_ns=40 * NS_PER_S, reason="exit code 1")
    assert outlook([failed], {}, cluster=ONE, now_ns=500).reasons == {"j": "is tried again in 40 s, after: exit code 1"}
    long = replace(failed, ready_ns=3600 * NS_PER_S)
    assert outlook([long], {}, cluster=ONE, now_ns=0).reasons["j"].startswith("is tried again in 60 min, ")


def test_a_pause_that_is_over_is_none() -> None:
    failed = replace(job(spec()), ready_ns=40 * NS_PER_S, reason="exit code 1")
    found = outlook([failed], {}, cluster=ONE, now_ns=40 * NS_PER_S)
    assert [placed.job_id for placed in found.decisions.placements] == ["j"]
    assert found.reasons["j"].startswith("starts next: ")


def test_place_and_quota_are_told_as_they_are_decided() -> None:
    jobs = [job(spec("first")), job(spec("second"), sequence=1), job(spec("never", accelerators=["T4"]), sequence=2)]
    found = outlook(jobs, {}, cluster=ONE, now_ns=0)
    assert {one.job_id: one.reason for one in found.decisions.waiting} == {
        name: found.reasons[name] for name in ("second", "never")
    }
    assert "T4" in found.reasons["never"]
    none = Quota(scope="user", name="ada", gpus=0, queued_jobs=None)
    kept = outlook(jobs[:1], {}, cluster=ONE, now_ns=0, quotas=[none])
    assert "ada" in kept.reasons["first"]


def test_jobs_that_run_or_have_ended_have_no_reason_to_wait() -> None:
    jobs = [job(spec("runs"), JobState.RUNNING), job(spec("leaves"), JobState.STOPPING), job(spec(), JobState.FAILED)]
    assert outlook(jobs, {}, cluster=ClusterView(nodes=(node("a", gpus=2),)), now_ns=0).reasons == {}
