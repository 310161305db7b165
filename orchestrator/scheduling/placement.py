"""Which queued job goes where now. Pure: a snapshot in, one answer for every queued job out; no clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.lifecycle import JobRecord
from orchestrator.quotas import Quota
from orchestrator.scheduling.backfill import Backfill
from orchestrator.scheduling.inventory import Found, Inventory
from orchestrator.scheduling.limits import Limits
from orchestrator.scheduling.line import Line, order
from orchestrator.scheduling.preemption import Eviction, Preemptor
from orchestrator.scheduling.reasons import (
    why_claimed,
    why_here,
    why_later,
    why_preempted,
    why_promised,
)
from orchestrator.scheduling.refusals import why_never
from orchestrator.scheduling.room import Needs, needs_of
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.scheduling.tenancy import Tenant, ends, tenant_of

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
    """An answer for every queued job: each is in ``placements`` or in ``waiting``, in the order of the line."""

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    waiting: tuple[Waiting, ...]


def decide(snapshot: Snapshot) -> Decisions:
    """Decide for each queued job whether and where it starts now, and which running jobs make room.

    The line is walked once: by priority, then by who has had least, then as ``order`` says. A job over its quota waits
    and holds up nobody. One that fits nowhere is kept the room of those who are leaving, or has others leave, or, first
    of those that want the same accelerator types, is promised the place where it fits soonest; what is kept for one job
    is not given to those behind it, unless they end before.
    """
    return _Round(snapshot).run()


@dataclass(kw_only=True, slots=True)
class _Kin:
    """The queued jobs of the same needs, and what was found out for the first of them: room only shrinks.

    Attributes:
        refused_s: the shortest time limit for which there was no room; ``None`` before there was one.
        answer: what those are told for whom no room is kept, and whether they wait in vain.
        unclaimed: whether what is being vacated is known not to be enough.
    """

    needs: Needs
    refused_s: float | None = None
    answer: tuple[str, bool] | None = None
    unclaimed: bool = False


class _Round:
    """One walk along the line."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._now_ns = snapshot, snapshot.now_ns
        self._kin: dict[tuple[object, ...], _Kin] = {}
        self._kin_of = {job.spec.job_id: self._group(job) for job in snapshot.queued}
        labels = frozenset(key for kin in self._kin.values() for key, _ in kin.needs.labels)
        self._inventory = Inventory(snapshot.cluster, labels)
        self._line, self._limits = Line(snapshot.queued, snapshot.usage), Limits(snapshot.quotas)
        for job in sorted(snapshot.running, key=lambda one: one.job_id):
            tenant = tenant_of(job, needs_of(job.spec), self._now_ns)
            self._inventory.lodge(tenant, job.attempts[-1].nodes)
            self._count(job, tenant.needs)
        self._backfill, self._preemptor = Backfill(self._inventory), Preemptor(self._inventory)
        self._preemptions: list[Preemption] = []

    def run(self) -> Decisions:
        placements: list[Placement] = []
        waiting: list[Waiting] = []
        for job in self._line:
            kin = self._kin_of[job.spec.job_id]
            over = self._limits.refusal(job, kin.needs.gpu_parts)
            if over is not None:
                waiting.append(Waiting(job_id=job.spec.job_id, reason=over, impossible=False))
            elif (found := self._find(job, kin)) is not None:
                placements.append(self._start(job, kin.needs, found))
            else:
                reason, impossible = self._keep_room(job, kin)
                waiting.append(Waiting(job_id=job.spec.job_id, reason=reason, impossible=impossible))
        return Decisions(placements=tuple(placements), preemptions=tuple(self._preemptions), waiting=tuple(waiting))

    def _group(self, job: JobRecord) -> _Kin:
        resources = job.spec.resources
        labels = tuple(sorted(resources.labels.items())) if resources.labels else ()
        sizes = resources.gpus, resources.cpus, resources.memory_gb, resources.nodes
        key = resources.accelerators, *sizes, labels
        kin = self._kin.get(key)
        if kin is None:
            kin = self._kin[key] = _Kin(needs=needs_of(job.spec))
        return kin

    def _count(self, job: JobRecord, needs: Needs) -> None:
        self._line.charge(job.user, needs.gpu_parts)
        self._limits.hold(job, needs.gpu_parts)

    def _find(self, job: JobRecord, kin: _Kin) -> Found | None:
        limit_s = job.spec.schedule.time_limit_s or math.inf
        if kin.refused_s is not None and limit_s >= kin.refused_s:
            return None
        found = self._inventory.find(kin.needs, self._now_ns + limit_s * 1e9)
        if found is None:
            kin.refused_s = limit_s
        return found

    def _start(self, job: JobRecord, needs: Needs, found: Found) -> Placement:
        end_ns = ends(job, self._now_ns)
        nodes = [place.room.node for place in found.places]
        lender = next(filter(None, (place.lender(needs, end_ns) for place in found.places)), None)
        self._inventory.take(found.places, Tenant(job=job, needs=needs, end_ns=end_ns))
        self._count(job, needs)
        return Placement(
            job_id=job.job_id,
            nodes=tuple(node.node_id for node in nodes),
            accelerator=nodes[0].accelerator,
            why=why_here(needs, found.choice, nodes, lender),
        )

    def _keep_room(self, job: JobRecord, kin: _Kin) -> tuple[str, bool]:
        """Keep what room can be kept for a job that fits nowhere now; returns what it is told, and if it is in vain."""
        needs = kin.needs
        if not self._inventory.capable(needs):
            kin.answer = kin.answer or (why_never(needs, self._snapshot.cluster, self._inventory), True)
            return kin.answer
        length_ns = ends(job, 0)
        kept = None if kin.unclaimed else self._backfill.claim(job.job_id, needs, length_ns, self._now_ns)
        if kept is not None:
            return why_claimed(kept.places), False
        kin.unclaimed = True
        eviction = self._preemptor.evict(needs, job.spec.schedule.priority, self._now_ns)
        if eviction is not None:
            return self._evict(job, needs, eviction), False
        if kin.answer is None:
            kin.answer = why_later(needs, self._inventory), False
        kept = self._backfill.promise(job.job_id, needs, length_ns, self._now_ns)
        if kept is not None:
            return f"{kin.answer[0]}; {why_promised(kept.places, kept.at_ns, self._now_ns)}", False
        return kin.answer

    def _evict(self, job: JobRecord, needs: Needs, eviction: Eviction) -> str:
        for place in eviction.places:
            place.claim(job.job_id, needs, ends(job, self._now_ns))
        nodes = [place.room.node for place in eviction.places]
        for tenant in eviction.victims:
            reason = why_preempted(tenant.job, job, nodes)
            self._preemptions.append(Preemption(job_id=tenant.job.job_id, for_job=job.job_id, reason=reason))
        return why_claimed(eviction.places)
