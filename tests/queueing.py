"""Nodes, queued and running jobs, and snapshots of them, as tests of scheduling make them."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState, Stop
from orchestrator.quotas import Quota
from orchestrator.scheduling.placement import Snapshot
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec

NOW_NS = 1_800_000_000_000_000_000
MINUTE_NS = 60_000_000_000


def node(name, accelerator="H100", *, gpus=1, free=None, cpus=8.0, cpus_free=None, memory=None, **more):
    return NodeView(
        node_id=f"id-{name}",
        name=name,
        accelerator=accelerator,
        simulated=more.pop("simulated", True),
        gpus_total=gpus,
        gpus_free=gpus if free is None else free,
        cpus_total=cpus,
        cpus_free=cpus if cpus_free is None else cpus_free,
        memory_free_gb=memory,
        memory_total_gb=more.pop("memory_total", memory),
        **more,
    )


def job(
    job_id,
    *accelerators,
    user="ann",
    project=None,
    sequence=0,
    submitted_ns=0,
    priority=0,
    preemptible=True,
    limit_s=None,
    deadline=None,
    **resources,
):
    spec = JobSpec(
        job_id=job_id,
        task="digits",
        model="tiny/vit",
        resources={"accelerators": accelerators, **resources},
        schedule={
            "priority": priority,
            "preemptible": preemptible,
            "time_limit_s": limit_s,
            "deadline": deadline,
        },
        accounting={"project": project},
    )
    return JobRecord(
        spec=spec,
        run_id="run",
        sequence=sequence,
        state=JobState.QUEUED,
        reason=None,
        submitted_ns=submitted_ns,
        user=user,
    )


def on(record, *names, started_ns=NOW_NS, leaving=False):
    """The job, running on nodes of those names."""
    attempt = AttemptRecord(
        number=1,
        state=AttemptState.RUNNING,
        reason=None,
        nodes=tuple(f"id-{name}" for name in names),
        accelerator=None,
        started_ns=started_ns,
        ended_ns=None,
    )
    state = JobState.STOPPING if leaving else JobState.RUNNING
    return replace(record, state=state, attempts=(attempt,), stop=Stop.PREEMPT if leaving else None)


def snapshot(queued, *nodes, running=(), usage=None, quotas=(), now_ns=NOW_NS):
    return Snapshot(
        now_ns=now_ns,
        cluster=ClusterView(nodes=nodes),
        queued=queued,
        running=running,
        usage=usage or {},
        quotas=quotas,
    )


def quota(gpus, name="*", scope="user"):
    return Quota(scope=scope, name=name, gpus=gpus, queued_jobs=None)


def placed(decisions):
    """Job to the names of its nodes."""
    return {one.job_id: tuple(node_id.removeprefix("id-") for node_id in one.nodes) for one in decisions.placements}


def told(decisions):
    """Job to the reason it waits for."""
    return {one.job_id: one.reason for one in decisions.waiting}
