"""Which queued job goes where now. Pure: a queue and a snapshot in, one answer for every job out; no clock, no I/O.

The queue is walked once, in order. A job takes the first place that fits, so one that fits nowhere now does not hold
up the jobs behind it; a job with the same needs as an earlier one that waits can itself only wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord
from orchestrator.scheduling.reasons import suits, why_here, why_later, why_never
from orchestrator.scheduling.room import Needs, Room, free_room, needs_of, whole_room
from orchestrator.scheduling.snapshot import ClusterView


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A job that can start now.

    Attributes:
        node_id: where.
        accelerator: type of the node's GPUs; ``None`` when it has none, or none of a known type.
        why: the reason for this place, for people.
    """

    job_id: str
    node_id: str
    accelerator: str | None
    why: str


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
    """An answer for every job of the queue: each is in exactly one of the two, in the order of the queue."""

    placements: tuple[Placement, ...]
    waiting: tuple[Waiting, ...]


def order(queue: Sequence[JobRecord]) -> tuple[JobRecord, ...]:
    """The jobs in the order they are considered: higher priority, then earlier submission, then earlier in it.

    Two submissions of the same nanosecond are told apart by job id, so the answer does not hang on the order given.
    """
    return tuple(
        sorted(queue, key=lambda job: (-job.spec.schedule.priority, job.submitted_ns, job.sequence, job.job_id))
    )


def place(queue: Sequence[JobRecord], cluster: ClusterView) -> Decisions:
    """Decide for each job of ``queue`` (all of them queued) whether and where it starts on ``cluster`` now.

    A job's accelerator types are tried in its order of preference, and of the nodes that fit, real ones come before
    simulated ones, the head last, and the fullest first, so that larger places stay whole. What a placement takes is
    gone for the jobs behind it.
    """
    rooms = [free_room(node) for node in cluster.alive]
    placements: list[Placement] = []
    waiting: list[Waiting] = []
    no_room: dict[Needs, tuple[str, bool]] = {}  # room only shrinks on the way, so the first answer holds
    for job in order(queue):
        needs = needs_of(job.spec)
        found = _choose(needs, rooms) if needs not in no_room else None
        if found is None:
            if needs not in no_room:
                no_room[needs] = _why_not(needs, rooms, cluster)
            reason, impossible = no_room[needs]
            waiting.append(Waiting(job_id=job.job_id, reason=reason, impossible=impossible))
            continue
        choice, room = found
        room.take(needs)
        node = room.node
        why = why_here(needs, choice, node)
        placements.append(Placement(job_id=job.job_id, node_id=node.node_id, accelerator=node.accelerator, why=why))
    return Decisions(placements=tuple(placements), waiting=tuple(waiting))


def _choose(needs: Needs, rooms: Sequence[Room]) -> tuple[int, Room] | None:
    """The place of its type in the job's preferences and the room to take; ``None`` when nothing fits."""
    fitting = [room for room in rooms if suits(needs, room.node) and room.fits(needs)]
    for choice, accelerator in enumerate(needs.accelerators or (None,)):
        of_type = [room for room in fitting if accelerator is None or room.node.accelerator == accelerator]
        if of_type:
            return choice, min(of_type, key=lambda room: _rank(needs, room))
    return None


def _rank(needs: Needs, room: Room) -> tuple[bool, bool, bool, int, int, str, str]:
    """Lower is taken first. A job without a GPU keeps off nodes that have some."""
    node = room.node
    wasted = needs.gpus == 0 and node.gpus_total > 0
    return wasted, node.simulated, node.is_head, room.gpus, room.cpus, node.name, node.node_id


def _why_not(needs: Needs, rooms: Sequence[Room], cluster: ClusterView) -> tuple[str, bool]:
    capable = [room for room in rooms if suits(needs, room.node) and whole_room(room.node).fits(needs)]
    return (why_later(needs, capable), False) if capable else (why_never(needs, cluster), True)
