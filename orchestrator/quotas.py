"""Quotas: how much of the cluster, and of the queue, a user or a project may hold at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

QuotaScope = Literal["user", "project"]

EACH = "*"
"""The name that stands for each user, or each project, that has no quota of its own."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one user or project may hold at once.

    Attributes:
        name: of the user or project; ``*`` is each one that has none of its own, for itself.
        gpus: GPUs that its running jobs hold together; ``None`` is no limit.
        queued_jobs: its jobs that wait; more are refused when they are submitted. ``None`` is no limit.
    """

    scope: QuotaScope
    name: str
    gpus: float | None
    queued_jobs: int | None


def quota_of(quotas: Iterable[Quota], scope: QuotaScope, name: str | None) -> Quota | None:
    """The quota that holds for a user or project: its own, else that of each; ``None`` where there is neither.

    One without a name (an old ledger's user, a job without a project) is held to none.
    """
    if name is None:
        return None
    found = {quota.name: quota for quota in quotas if quota.scope == scope}
    return found.get(name, found.get(EACH))
