"""Quotas as they stand: what each user and project holds now, and what it may still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.quotas import EACH, Quota, QuotaScope, quota_of


@dataclass(frozen=True, kw_only=True)
class QuotaUse:
    """One user or project under a quota.

    Attributes:
        name: whose use it is; ``*`` where nobody falls under a quota of each.
        quota: its own, or that of each (``*``).
        gpus: GPUs that its jobs hold now; ``queued_jobs``: its jobs that wait.
    """

    name: str
    quota: Quota
    gpus: float
    queued_jobs: int

    @property
    def gpus_left(self) -> float | None:
        """GPUs it may still take, below 0 where the quota was lowered meanwhile; ``None``: no limit."""
        return None if self.quota.gpus is None else self.quota.gpus - self.gpus

    @property
    def queued_jobs_left(self) -> int | None:
        """Jobs it may still submit; ``None``: no limit."""
        return None if self.quota.queued_jobs is None else self.quota.queued_jobs - self.queued_jobs

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        quota = self.quota
        return {
            "scope": quota.scope,
            "name": self.name,
            "set_for": quota.name,
            "gpus": {"quota": quota.gpus, "used": self.gpus, "left": self.gpus_left},
            "queued_jobs": {"quota": quota.queued_jobs, "used": self.queued_jobs, "left": self.queued_jobs_left},
        }


def quota_uses(quotas: Sequence[Quota], jobs: Sequence[JobRecord]) -> tuple[QuotaUse, ...]:
    """Each quota with what those under it use, by scope and name; ``jobs`` are the unfinished ones of the ledger."""
    found = []
    for quota in quotas:
        under = {_owner(job, quota.scope) for job in jobs} if quota.name == EACH else {quota.name}
        names = sorted(name for name in under if name and quota_of(quotas, quota.scope, name) == quota)
        found += [_use(name, quota, jobs) for name in names or [EACH]]
    return tuple(found)


def uses_of(job: JobRecord, quotas: Sequence[Quota], jobs: Sequence[JobRecord]) -> tuple[QuotaUse, ...]:
    """The quotas that one job falls under, of its user and its project."""
    scopes: tuple[QuotaScope, ...] = ("user", "project")
    owners = [(quota_of(quotas, scope, _owner(job, scope)), _owner(job, scope)) for scope in scopes]
    return tuple(_use(name, quota, jobs) for quota, name in owners if quota is not None and name is not None)


def gpus_of(job: JobRecord) -> float:
    """GPUs a job holds while it runs, over all of its nodes."""
    return float(job.spec.resources.gpus * job.spec.resources.nodes)


def _use(name: str, quota: Quota, jobs: Sequence[JobRecord]) -> QuotaUse:
    theirs = [job for job in jobs if _owner(job, quota.scope) == name]
    return QuotaUse(
        name=name,
        quota=quota,
        gpus=sum(gpus_of(job) for job in theirs if job.state.holds_place),
        queued_jobs=sum(job.state is JobState.QUEUED for job in theirs),
    )


def _owner(job: JobRecord, scope: QuotaScope) -> str | None:
    return job.user if scope == "user" else job.spec.accounting.project
