"""Which queued job goes where now. Pure: a snapshot in, one answer for every queued job out; no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.lifecycle import JobRecord
from orchestrator.quotas import Quota
from orchestrator.scheduling.backfill import Backfill
from orchestrator.scheduling.inventory import Demand, Inventory, Search
from orchestrator.scheduling.limits import Limits
from orchestrator.scheduling.line import Line, order
from orchestrator.scheduling.preemption import Eviction, Preemptor
from orchestrator.scheduling.reasons import Explainer, why_claimed, why_here, why_preempted, why_promised
from orchestrator.scheduling.refusals import why_never
from orchestrator.scheduling.room import Needs
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.scheduling.tenancy import Tenant, ends, tenant_of
from orchestrator.turn import Turn

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """An answer for every queued job: each is in ``placements`` or in ``waiting``, in the order of the line.

    Attributes:
        explain: words what the others wait for; for ``waiting``, so that who only acts does not pay for sentences.
    """

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    explain: Callable[[], tuple[Waiting, ...]] = field(repr=False)

    @cached_property
    def waiting(self) -> tuple[Waiting, ...]:
        """The jobs that do not start now, and why; worded when first asked for."""
        return self.explain()

    def __eq__(self, other: object) -> bool:
        """Whether all answers are the same."""
        if not isinstance(other, Decisions):
            return NotImplemented
        return (self.placements, self.preemptions, self.waiting) == (other.placements, other.preemptions, other.waiting)

    __hash__ = None  # type: ignore[assignment]


def decide(snapshot: Snapshot) -> Decisions:
    """Decide for each queued job whether and where it starts now, and which running jobs make room.

    The line is walked once: by priority, then by who has had least, then as ``order`` says. A job over its quota waits
    and holds up nobody. One that fits nowhere is kept the room of those who are leaving, or has others leave, or, first
    of those that want the same accelerator types, is promised the place where it fits soonest; what is kept for one job
    is not given to those behind it, unless they end before.
    """
    return _Round(snapshot).run()


@dataclass(kw_only=True, slots=True, eq=False)
class _Kin:
    """The queued jobs of the same needs, and what was found out for the first of them: room only shrinks.

    Attributes:
        refused_s: the shortest time limit for which there was no room, seconds; ``None`` before there was one.
        unkept: whether no room is kept for another of them: none is being vacated, and another was promised some.
        reason: what those are told for whom no room is kept; ``impossible``: whether they wait in vain.
    """

    needs: Needs
    demand: Demand | None = None
    refused_s: float | None = None
    unkept: bool = False
    reason: str = ""
    impossible: bool = False


class _Round:
    """One walk along the line."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._now_ns = snapshot, snapshot.now_ns
        turns = [job.turn for job in snapshot.queued]
        self._job_of = dict(zip((turn.job_id for turn in turns), snapshot.queued, strict=True))
        self._line, self._limits = Line(turns, snapshot.usage), Limits(snapshot.quotas)
        self._kin: dict[Needs, _Kin] = {}
        labels = frozenset(key for turn in turns for key, _ in turn.needs.labels)
        self._inventory = Inventory(snapshot.cluster, labels)
        for job in sorted(snapshot.running, key=lambda one: one.job_id):
            tenant = tenant_of(job, job.turn.needs, self._now_ns)
            self._inventory.lodge(tenant, job.attempts[-1].nodes)
            self._count(job, tenant.needs)
        self._backfill, self._preemptor = Backfill(self._inventory), Preemptor(self._inventory)
        self._search, self._explainer = Search(), Explainer()
        self._placements: list[Placement] = []
        self._preemptions: list[Preemption] = []
        self._later: list[Turn] = []
        self._told: dict[str, str] = {}

    def run(self) -> Decisions:
        for turn in self._line:
            reason = self._limits.refusal(turn, turn.needs.gpu_parts) if self._limits.any else None
            if reason is None and not self._is_vain(turn):
                kin = self._kin_of(turn)
                if (kin.refused_s is None or turn.limit_s < kin.refused_s) and self._start(turn, kin):
                    continue
                is_idle = self._preemptor.is_idle(-turn.below)
                if not (is_idle and (kin.unkept or self._backfill.is_over)):
                    reason = self._keep_room(turn, kin, is_idle=is_idle)
            self._later.append(turn)
            if reason is not None:
                self._told[turn.job_id] = reason
        return Decisions(
            placements=tuple(self._placements), preemptions=tuple(self._preemptions), explain=self._explain
        )

    def _explain(self) -> tuple[Waiting, ...]:
        return tuple(map(self._waiting, self._later))

    def _waiting(self, turn: Turn) -> Waiting:
        """A job was told what is its own; else it is as with all its kin."""
        job_id, kin = turn.job_id, self._kin_of(turn)
        if job_id in self._told:
            return Waiting(job_id=job_id, reason=self._told[job_id], impossible=False)
        if not kin.reason:
            self._word(kin)
        return Waiting(job_id=job_id, reason=kin.reason, impossible=kin.impossible)

    def _kin_of(self, turn: Turn) -> _Kin:
        kin = self._kin.get(turn.needs)
        if kin is None:
            kin = self._kin[turn.needs] = _Kin(needs=turn.needs)
        return kin

    def _is_vain(self, turn: Turn) -> bool:
        """Whether it is known of a job, the first of its needs, that nothing starts it and nothing is kept for it."""
        return (
            self._backfill.is_over
            and turn.needs not in self._kin
            and self._preemptor.is_idle(-turn.below)
            and self._search.is_vain(turn.needs, ends(turn, self._now_ns))
        )

    def _count(self, job: JobRecord, needs: Needs) -> None:
        self._line.charge(job.user, needs.gpu_parts)
        self._limits.hold(job.turn, needs.gpu_parts)

    def _start(self, turn: Turn, kin: _Kin) -> bool:
        """Start a job where it fits; ``False`` when that is nowhere."""
        needs, end_ns = kin.needs, ends(turn, self._now_ns)
        is_vain = self._search.is_vain(needs, end_ns)
        found = None if is_vain else self._search.find(self._demand(kin), end_ns)
        if found is None:
            kin.refused_s = turn.limit_s
            return False
        job = self._job_of[turn.job_id]
        lender = next(filter(None, (place.lender(needs, end_ns) for place in found.places)), None)
        nodes = [place.room.node for place in found.places]
        why = why_here(needs, found.choice, nodes, lender)
        node_ids = tuple(node.node_id for node in nodes)
        self._placements.append(Placement(job_id=job.job_id, nodes=node_ids, accelerator=nodes[0].accelerator, why=why))
        self._inventory.take(found.places, Tenant(job=job, needs=needs, end_ns=end_ns))
        self._count(job, needs)
        return True

    def _keep_room(self, turn: Turn, kin: _Kin, *, is_idle: bool) -> str | None:
        """Keep what room can be kept for a job that fits nowhere now; returns what it is told then."""
        demand, length_ns, now_ns, reason = self._demand(kin), ends(turn, 0), self._now_ns, None
        if not demand.shelves:
            kin.unkept = True
            return None
        if not kin.unkept:
            claimed = self._backfill.claim(turn.job_id, demand, length_ns, now_ns)
            if claimed is not None:
                return why_claimed(claimed.places)
        if not is_idle:
            eviction = self._preemptor.evict(demand, -turn.below, now_ns)
            if eviction is not None:
                return self._evict(self._job_of[turn.job_id], demand, eviction)
        if not kin.unkept and self._backfill.is_first(demand):
            why = Explainer().why_later(demand)
            kept = self._backfill.promise(turn.job_id, demand, length_ns, now_ns)
            reason = f"{why}; {why_promised(kept.places, kept.at_ns, now_ns)}"
        kin.unkept = True
        return reason

    def _demand(self, kin: _Kin) -> Demand:
        if kin.demand is None:
            kin.demand = self._inventory.demand(kin.needs)
        return kin.demand

    def _evict(self, job: JobRecord, demand: Demand, eviction: Eviction) -> str:
        self._inventory.claim(eviction.places, job.job_id, demand.needs, ends(job.turn, self._now_ns))
        nodes = [place.room.node for place in eviction.places]
        for tenant in eviction.victims:
            reason = why_preempted(tenant.job, job, nodes)
            self._preemptions.append(Preemption(job_id=tenant.job.job_id, for_job=job.job_id, reason=reason))
        return why_claimed(eviction.places)

    def _word(self, kin: _Kin) -> None:
        """Why those wait for whom no room is kept: by what is free now that all is decided."""
        demand = self._demand(kin)
        kin.impossible = not demand.shelves
        if kin.impossible:
            kin.reason = why_never(kin.needs, self._snapshot.cluster, self._inventory)
        else:
            kin.reason = self._explainer.why_later(demand)
