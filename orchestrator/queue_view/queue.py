"""The queue as its people see it: the ledger's jobs, looked at with the eyes of the controllers that see to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view.controllers import REMEDY, ControllerView, controller_of, controller_views
from orchestrator.queue_view.jobs import JobView, eta_s
from orchestrator.scheduling.outlook import outlook
from orchestrator.scheduling.placement import Waiting, order
from orchestrator.scheduling.shares import decayed
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import Store
from workers.home import Home
from workers.progress import read_progress
from workers.units import NS_PER_S

FORGOTTEN_NS = 20 * 86_400 * NS_PER_S
"""Use older than twenty half-lives weighs less than a millionth, and is not read."""
NO_CONTROLLER = f"no controller has looked at it yet; {REMEDY}"


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """Some jobs of a ledger at one instant, and who sees to them.

    Attributes:
        jobs: in the order they were asked for.
        line: ids of all jobs of the ledger that wait for their turn, first in line first.
        usage: GPU-seconds each user had lately, decayed.
        bound: ids of the runs that end with the command that submitted them, and have a controller of their own.
    """

    now_ns: int
    jobs: tuple[JobView, ...]
    controllers: tuple[ControllerView, ...]
    line: tuple[str, ...]
    usage: Mapping[str | None, float]
    bound: frozenset[str] = frozenset()

    def controller_of(self, job: JobRecord) -> ControllerView | None:
        """The controller that sees to a job; ``None`` where none ever said that it does."""
        return controller_of(job, self.bound, self.controllers)

    def is_served(self, job: JobRecord) -> bool:
        """Whether a controller that lives sees to a job."""
        controller = self.controller_of(job)
        return controller is not None and controller.is_alive

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; times in ns since the epoch, UTC."""
        return {
            "now_ns": self.now_ns,
            "controllers": [controller.as_dict() for controller in self.controllers],
            "waiting_in_line": len(self.line),
            "jobs": [job.as_dict() for job in self.jobs],
        }


def whole_queue(store: Store) -> tuple[JobRecord, ...]:
    """Every job of the ledger that has not ended, in order of submission."""
    return store.jobs(unfinished=True)


def look(home: Home, store: Store, jobs: Sequence[JobRecord], *, now_ns: int) -> QueueView:
    """How ``jobs`` of the ledger stand; the whole queue is read, since what is ahead of a job decides when it starts."""
    controllers = controller_views(store.controllers(), now_ns=now_ns)
    bound = frozenset(run.run_id for run in store.runs(unfinished=True) if run.bound)
    usage = decayed(store.attempt_spans(since_ns=now_ns - FORGOTTEN_NS), now_ns)
    groups: dict[str | None, list[JobRecord]] = {}
    seen_by: dict[str | None, ControllerView] = {}
    for job in store.jobs(unfinished=True):
        controller = controller_of(job, bound, controllers)
        name = controller.record.name if controller else None
        groups.setdefault(name, []).append(job)
        if controller:
            seen_by[name] = controller
    waiting: dict[str, Waiting] = {}
    for name, queue in groups.items():
        waiting |= _waiting(queue, seen_by.get(name), store, usage, now_ns)
    places = {job_id: place for place, job_id in enumerate(waiting, 1)}
    nodes = {node.node_id: node for controller in controllers for node in controller.cluster.nodes}
    views = tuple(_view(home, job, waiting.get(job.job_id), places.get(job.job_id), nodes, now_ns) for job in jobs)
    return QueueView(now_ns=now_ns, jobs=views, controllers=controllers, line=tuple(places), usage=usage, bound=bound)


def _view(
    home: Home, job: JobRecord, waiting: Waiting | None, place: int | None, nodes: Mapping[str, NodeView], now_ns: int
) -> JobView:
    last = job.attempts[-1] if job.attempts else None
    on = [nodes.get(node_id) for node_id in last.nodes] if last else []
    running = last if last is not None and job.state.holds_place else None
    progress = None if running is None else read_progress(home, job.job_id, running.number)
    return JobView(
        record=job,
        place=place,
        nodes=tuple(node.name if node else node_id for node, node_id in zip(on, last.nodes if last else (), strict=True)),
        simulated=None if None in on or not on else any(node.simulated for node in on if node),
        progress=progress,
        eta_s=None if running is None or progress is None else eta_s(progress, running.started_ns, now_ns),
        waits=waiting.reason if waiting else None,
        impossible=waiting is not None and waiting.impossible,
    )


def _waiting(
    queue: Sequence[JobRecord],
    controller: ControllerView | None,
    store: Store,
    usage: Mapping[str | None, float],
    now_ns: int,
) -> dict[str, Waiting]:
    """Why each queued job of one controller waits, first in line first; the last are not in line yet."""
    if controller is None:
        queued = order([job for job in queue if job.state is JobState.QUEUED])
        return {j.job_id: Waiting(job_id=j.job_id, reason=NO_CONTROLLER, impossible=False) for j in queued}
    decisions, held = outlook(queue, controller.cluster, quotas=store.quotas(), usage=usage, now_ns=now_ns)
    return {
        **{p.job_id: Waiting(job_id=p.job_id, reason=f"could start: {p.why}", impossible=False) for p in decisions.placements},
        **{w.job_id: w for w in decisions.waiting},
        **held,
    }


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


def controller_lines(view: QueueView) -> list[str]:
    """A line on each controller that sees to these jobs, or should: whether it lives, since when, in what trouble."""
    unfinished = [job.record for job in view.jobs if not job.record.state.is_final]
    told = {c.record.name: c for job in unfinished if (c := view.controller_of(job)) is not None}
    lines = [controller.sentence(view.now_ns) for controller in told.values()]
    if any(view.controller_of(job) is None for job in unfinished):
        lines.append(f"controller: not running; {REMEDY}")
    return lines
