"""What the queue looks like at one instant: who starts, and why each of the others waits. Pure.

Reasons to wait are not stored: they hold for a moment only. Whoever wants them (the controller, ``status``,
``explain``) makes them anew, here, from the same values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.quotas import Quota
from orchestrator.scheduling.needs import waits_for
from orchestrator.scheduling.placement import Decisions, Snapshot, decide
from orchestrator.scheduling.snapshot import ClusterView
from workers.units import NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What happens next.

    Attributes:
        decisions: about the jobs that could start now.
        held: of the other queued jobs, what they wait for before they could, by job id.
    """

    decisions: Decisions
    held: Mapping[str, str]

    @cached_property
    def reasons(self) -> Mapping[str, str]:
        """Of every queued job, why it has not started, by job id; worded when first asked for."""
        waiting = {one.job_id: one.reason for one in self.decisions.waiting}
        return {**self.held, **waiting, **{one.job_id: f"starts next: {one.why}" for one in self.decisions.placements}}


def outlook(
    jobs: Iterable[JobRecord],
    states: Mapping[str, JobState],
    *,
    cluster: ClusterView,
    now_ns: int,
    usage: Mapping[str | None, float] | None = None,
    quotas: Sequence[Quota] = (),
) -> Outlook:
    """Decide about ``jobs``, of which those that have ended are passed over.

    ``states`` are those of all jobs that they need, by job id; ``usage`` is what ``shares.decayed`` gives.
    """
    held: dict[str, str] = {}
    queued, running = [], []
    for job in jobs:
        if job.state.holds_place:
            running.append(job)
        elif job.state is JobState.QUEUED:
            reason = waits_for(job, states) or _pause(job, now_ns)
            if reason is None:
                queued.append(job)
            else:
                held[job.job_id] = reason
    decisions = decide(
        Snapshot(now_ns=now_ns, cluster=cluster, queued=queued, running=running, usage=usage or {}, quotas=quotas)
    )
    return Outlook(decisions=decisions, held=held)


def _pause(job: JobRecord, now_ns: int) -> str | None:
    """Why a job is not tried again yet; ``None`` when it may be."""
    if job.ready_ns <= now_ns:
        return None
    left_s = math.ceil((job.ready_ns - now_ns) / NS_PER_S)
    left = f"{left_s} s" if left_s < 120 else f"{math.ceil(left_s / 60)} min"
    return f"is tried again in {left}{f', after: {job.reason}' if job.reason else ''}"
