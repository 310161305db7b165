"""The line in front of one cluster: who waits in which order, and for what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view.controllers import REMEDY, ControllerView
from orchestrator.quotas import Quota
from orchestrator.scheduling.outlook import outlook

UNSEEN = f"waits for a controller; {REMEDY}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Jobs that wait.

    Attributes:
        places: of each job that could start if there were room, from 1; one that needs another job is not in line yet.
        reasons: why each queued job waits.
        impossible: those that no node there is could ever run.
    """

    places: Mapping[str, int]
    reasons: Mapping[str, str]
    impossible: frozenset[str] = frozenset()


def line_of(
    jobs: Iterable[JobRecord],
    states: Mapping[str, JobState],
    controller: ControllerView | None,
    *,
    now_ns: int,
    usage: Mapping[str | None, float],
    quotas: Sequence[Quota],
) -> Line:
    """The unfinished ``jobs`` of one controller, on the cluster as it saw it last; without one nothing has a place.

    ``states`` are those of all jobs that they need, ``usage`` GPU-seconds by user, decayed.
    """
    if controller is None:
        return Line(places={}, reasons={job.job_id: UNSEEN for job in jobs if job.state is JobState.QUEUED})
    found = outlook(jobs, states, cluster=controller.cluster, now_ns=now_ns, usage=usage, quotas=quotas)
    placements, waiting = found.decisions.placements, found.decisions.waiting
    in_turn = [*(one.job_id for one in placements), *(one.job_id for one in waiting)]
    return Line(
        places={job_id: place for place, job_id in enumerate(in_turn, 1)},
        reasons=found.reasons,
        impossible=frozenset(one.job_id for one in waiting if one.impossible),
    )
