"""The queue as its people see it: the ledger's jobs, looked at with the eyes of the controllers that see to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view.controllers import NOT_RUNNING, ControllerView, controller_of, controller_views
from orchestrator.queue_view.jobs import JobView, view_of
from orchestrator.queue_view.line import Line, line_of
from orchestrator.scheduling.shares import decayed
from orchestrator.store import Store
from workers.home import Home
from workers.units import NS_PER_S

FORGOTTEN_NS = 20 * 86_400 * NS_PER_S
"""Use older than twenty half-lives weighs less than a millionth, and is not read."""


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """Some jobs of a ledger at one instant, and who sees to them.

    Attributes:
        jobs: in the order they were asked for.
        usage: GPU-seconds each user had lately, decayed.
        bound: ids of the runs that end with the command that submitted them, and have a controller of their own.
    """

    now_ns: int
    jobs: tuple[JobView, ...]
    controllers: tuple[ControllerView, ...]
    usage: Mapping[str | None, float]
    bound: frozenset[str]

    def controller_of(self, job: JobRecord) -> ControllerView | None:
        """The controller that sees to a job; ``None`` where none ever said that it does."""
        return controller_of(job, self.bound, self.controllers)

    def is_served(self, job: JobRecord) -> bool:
        """Whether a controller that lives sees to a job."""
        controller = self.controller_of(job)
        return controller is not None and controller.is_alive

    def controller_lines(self) -> list[str]:
        """On each controller that sees to these jobs, or should: whether it lives, since when, and its trouble."""
        found = {self.controller_of(job.record) for job in self.jobs if not job.record.state.is_final}
        told = sorted((one.record.name, one.sentence(self.now_ns)) for one in found if one is not None)
        return [": ".join(line) for line in told] + ([f"controller: {NOT_RUNNING}"] if None in found else [])

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; times in ns since the epoch, UTC."""
        return {
            "now_ns": self.now_ns,
            "controllers": [controller.as_dict() for controller in self.controllers],
            "jobs": [job.as_dict() for job in self.jobs],
        }


def look(home: Home, store: Store, jobs: Sequence[JobRecord], *, now_ns: int) -> QueueView:
    """How ``jobs`` of the ledger stand now; the whole queue is read, since what is ahead of a job decides its turn."""
    controllers = controller_views(store.controllers(), now_ns=now_ns)
    bound = frozenset(run.run_id for run in store.runs(unfinished=True) if run.bound)
    usage = decayed(store.attempt_spans(since_ns=now_ns - FORGOTTEN_NS), now_ns)
    groups: dict[str | None, list[JobRecord]] = {}
    for job in store.jobs(unfinished=True):
        controller = controller_of(job, bound, controllers)
        groups.setdefault(controller.record.name if controller else None, []).append(job)
    states, quotas = _states(store, groups), store.quotas()
    lines: dict[str, Line] = {}
    for name, queue in groups.items():
        seen_by = next((one for one in controllers if one.record.name == name), None)
        line = line_of(queue, states, seen_by, now_ns=now_ns, usage=usage, quotas=quotas)
        lines |= {job.job_id: line for job in queue}
    nodes = {node.node_id: node for controller in controllers for node in controller.cluster.nodes}
    views = tuple(view_of(home, job, lines.get(job.job_id), nodes, now_ns=now_ns) for job in jobs)
    return QueueView(now_ns=now_ns, jobs=views, controllers=controllers, usage=usage, bound=bound)


def _states(store: Store, groups: Mapping[str | None, Sequence[JobRecord]]) -> Mapping[str, JobState]:
    """The state of every unfinished job, and of every job that one of them needs."""
    jobs = [job for queue in groups.values() for job in queue]
    states = {job.job_id: job.state for job in jobs}
    return {**store.states({need for job in jobs for need in job.spec.needs} - states.keys()), **states}


def in_line(jobs: Sequence[JobView]) -> list[JobView]:
    """Jobs that hold a place first, by when they got it; then those that wait, by their turn; then the others."""
    return sorted(
        jobs,
        key=lambda job: (
            job.record.state.is_final,
            not job.record.state.holds_place,
            job.record.attempts[-1].started_ns if job.record.state.holds_place else 0,
            job.place is None,
            job.place or 0,
            job.record.submitted_ns,
            job.record.sequence,
        ),
    )
