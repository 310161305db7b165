"""Which queued job goes where now. Pure: a snapshot in, one answer for every queued job out; no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.lifecycle import JobRecord
from orchestrator.quotas import Quota
from orchestrator.scheduling.inventory import Found, Inventory
from orchestrator.scheduling.line import Line, order
from orchestrator.scheduling.reasons import why_here, why_later, why_never
from orchestrator.scheduling.room import Needs, needs_of
from orchestrator.scheduling.snapshot import ClusterView

__all__ = ["Decisions", "Placement", "Preemption", "Snapshot", "Waiting", "decide", "order"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All that a decision is made from, at one instant.

    Attributes:
        now_ns: the instant, ns since the epoch.
        queued: the jobs that could start now: what they need has succeeded, and no pause holds them.
        running: the jobs that hold a place; the last attempt of each tells where and since when.
        usage: GPU-seconds each user had, decayed (``shares.decayed``); who is not in it had none.
    """

    now_ns: int
    cluster: ClusterView
    queued: Sequence[JobRecord] = ()
    running: Sequence[JobRecord] = ()
    usage: Mapping[str | None, float] = field(default_factory=dict)
    quotas: Sequence[Quota] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A job that can start now.

    Attributes:
        nodes: node ids, of rank 0 first.
        accelerator: type of the nodes' GPUs; ``None`` when they have none, or none of a known type.
        why: the reason for this place, for people.
    """

    job_id: str
    nodes: tuple[str, ...]
    accelerator: str | None
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Preemption:
    """A running job that is to leave its place.

    Attributes:
        for_job: the queued job that gets it.
        reason: for the person whose job leaves.
    """

    job_id: str
    for_job: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A job that cannot start now.

    Attributes:
        reason: what it waits for, or why it waits in vain, for people.
        impossible: no node that answers now could run it, even if the node were empty.
    """

    job_id: str
    reason: str
    impossible: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """An answer for every queued job: each is in ``placements`` or in ``waiting``, in the order they were considered."""

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    waiting: tuple[Waiting, ...]


def decide(snapshot: Snapshot) -> Decisions:
    """Decide for each queued job whether and where it starts now, and which running ones make room."""
    needs = {job.job_id: needs_of(job.spec) for job in snapshot.queued}
    keys = frozenset(key for one in needs.values() for key, _ in one.labels)
    inventory = Inventory(snapshot.cluster, keys)
    line = Line(snapshot.queued, snapshot.usage)
    for job in snapshot.running:
        line.charge(job.user, needs_of(job.spec).gpu_parts)
    placements, waiting = [], []
    for job in line:
        needed = needs[job.job_id]
        found = inventory.find(needed, float("inf"))
        if found is None:
            waiting.append(_waiting(job, needed, inventory, snapshot.cluster))
            continue
        for place in found.places:
            inventory.take(place, needed)
        line.charge(job.user, needed.gpu_parts)
        placements.append(_placement(job, needed, found))
    return Decisions(placements=tuple(placements), preemptions=(), waiting=tuple(waiting))


def _placement(job: JobRecord, needs: Needs, found: Found) -> Placement:
    nodes = [place.room.node for place in found.places]
    return Placement(
        job_id=job.job_id,
        nodes=tuple(node.node_id for node in nodes),
        accelerator=nodes[0].accelerator,
        why=why_here(needs, found.choice, nodes[0]),
    )


def _waiting(job: JobRecord, needs: Needs, inventory: Inventory, cluster: ClusterView) -> Waiting:
    capable = inventory.capable(needs)
    if not capable:
        return Waiting(job_id=job.job_id, reason=why_never(needs, cluster), impossible=True)
    rooms = sorted(
        (place.room for shelf in capable for place in shelf.places), key=lambda r: (r.node.name, r.node.node_id)
    )
    return Waiting(job_id=job.job_id, reason=why_later(needs, rooms), impossible=False)
