"""What would run where, why, and after what: the controller's own decisions, played forward on a snapshot.

How long a job takes is not known before it has run, so the play assumes that all take equally long: jobs start in
waves, and a wave starts when the one before it has ended. Order and places follow from that assumption.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.scheduling.placement import Decisions, Snapshot, decide, order
from orchestrator.scheduling.room import UNITS, Needs, needs_of, whole_room
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import Adapter, JobSpec

LENGTHS_UNKNOWN = (
    "How long each job takes is not known before it has run; waves assume that all take equally long, "
    "so later places may differ."
)
ENERGY_UNKNOWN = "no estimate of energy is made by this version of Wattledger"
SIMULATED = "Jobs on simulated accelerators train for real, on the CPU; their power, kWh and CO2e are simulated."
REMOTE_CODE = "trust.remote_code: code that comes with {} runs on the node, with the job's rights."
PICKLE = "trust.pickle: weights of {} may be read from a pickle, which can run code on the node."


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """One job of a plan.

    Attributes:
        order: its place in the queue, from 1.
        adapter: how its weights are adapted, in a word or two: ``lora r=8``, ``full``, ``none``.
        accelerator: accelerator type it would get; ``None`` when it gets no place, or one of no known type.
        node: name of the node, or of all nodes of a gang; ``None`` when it gets no place.
        simulated: whether that node's accelerators are simulated; ``None`` when it gets no place.
        wave: 1 for jobs that start at once; ``None`` when it gets no place.
        why: the reason for its place; ``None`` when it gets none.
        waits: what keeps it from starting at once; ``None`` when nothing does.
        waits_for: the planned job whose end would make its room; ``None`` when it starts at once, or waits for
            work that is not of this plan.
        impossible: why no node could ever run it; ``None`` when one could.
        predicted_energy_kwh: ``None``, for the reason in ``predicted_energy_reason``.
    """

    order: int
    job_id: str
    model: str
    adapter: str
    seed: int
    accelerator: str | None = None
    node: str | None = None
    simulated: bool | None = None
    wave: int | None = None
    why: str | None = None
    waits: str | None = None
    waits_for: str | None = None
    impossible: str | None = None
    predicted_energy_kwh: float | None = None
    predicted_energy_reason: str | None = ENERGY_UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would happen to some jobs on a cluster.

    Attributes:
        jobs: in the order of the queue.
        waves: how many, one after another; 0 when nothing can run.
        notes: what a reader must know to read it rightly.
    """

    jobs: tuple[PlannedJob, ...]
    waves: int
    notes: tuple[str, ...]

    @property
    def impossible(self) -> tuple[PlannedJob, ...]:
        """The jobs no node could ever run."""
        return tuple(job for job in self.jobs if job.impossible is not None)

    def as_dict(self) -> dict[str, object]:
        """The plan, JSON-ready."""
        return {
            "jobs": [dataclasses.asdict(job) for job in self.jobs],
            "waves": self.waves,
            "notes": list(self.notes),
        }


def make_plan(jobs: Sequence[JobSpec], cluster: ClusterView) -> Plan:
    """Play the queue forward: the first wave on what is free now, each later one on the empty cluster.

    Job ids must differ, as those of one submission do.
    """
    queue = order([_queued(spec, sequence) for sequence, spec in enumerate(jobs)])
    play = _Play(queue, cluster)
    waves = play.run()
    in_order = tuple(play.planned.values())
    notes = [LENGTHS_UNKNOWN] if waves > 1 else []
    notes += _trusted(jobs)
    notes += [SIMULATED] if any(job.simulated for job in in_order) else []
    return Plan(jobs=in_order, waves=waves, notes=tuple(notes))


def _trusted(jobs: Sequence[JobSpec]) -> list[str]:
    """What of models that are not the registry's may run code, in a sentence each."""
    told = []
    for sentence, models in (
        (REMOTE_CODE, {spec.model: None for spec in jobs if spec.trust.remote_code}),
        (PICKLE, {spec.model: None for spec in jobs if spec.trust.pickle}),
    ):
        told += [sentence.format(", ".join(models))] if models else []
    return told


def adapter_summary(adapter: Adapter) -> str:
    """How the weights are adapted, in a word or two."""
    return f"lora r={adapter.rank}" if adapter.method == "lora" else adapter.method


Lane = tuple[Needs, float | None]
"""Jobs of the same needs and time limit start in the order of the queue."""


class _Play:
    """The queue as it empties. Of the jobs in a lane only the first few can start at once."""

    def __init__(self, queue: Sequence[JobRecord], cluster: ClusterView) -> None:
        self.planned = {record.job_id: _unplaced(record, number) for number, record in enumerate(queue, 1)}
        self._records = {record.job_id: record for record in queue}
        self._cluster = cluster
        self._names = {node.node_id: node for node in cluster.alive}
        self._lanes: dict[Lane, list[tuple[int, str]]] = {}
        self._width: dict[Lane, int] = {}
        self._on_node: dict[str, list[str]] = {}
        # What is needed and not of this plan is there already, or whoever submits is told that it is not.
        self._unmet = {job_id: set(record.spec.needs) & set(self._records) for job_id, record in self._records.items()}
        self._needed_by: dict[str, list[str]] = {}
        for job_id, unmet in self._unmet.items():
            if not unmet:
                self._line_up(job_id)
                continue
            self._tell(job_id, waits=f"waits for what it needs: {', '.join(self._records[job_id].spec.needs)}")
            for needed in unmet:
                self._needed_by.setdefault(needed, []).append(job_id)

    def run(self) -> int:
        """Place every job that has a place; returns how many waves that takes."""
        wave, cluster = 1, self._cluster
        empty = ClusterView(nodes=tuple(_emptied(node) for node in self._cluster.nodes))
        while self._lanes:
            decisions = self._decide(cluster)
            self._note_waits(decisions, first=wave == 1)
            self._start(decisions, wave)
            for placement in decisions.placements:
                self._meet(placement.job_id)
            wave, cluster = wave + 1, empty
        return max((job.wave or 0 for job in self.planned.values()), default=0)

    def _line_up(self, job_id: str) -> None:
        spec = self._records[job_id].spec
        needs = needs_of(spec)
        lane = needs, spec.schedule.time_limit_s
        if lane not in self._width:
            self._width[lane] = _at_most(needs, self._cluster)
        bisect.insort(self._lanes.setdefault(lane, []), (self.planned[job_id].order, job_id))

    def _decide(self, cluster: ClusterView) -> Decisions:
        """The controller's own decisions over the front of each lane: what can start, and the first two that cannot.

        Two, since the first may be promised a place, which is nothing to those behind it.
        """
        front = [job_id for lane, queue in self._lanes.items() for _, job_id in queue[: self._width[lane] + 2]]
        return decide(Snapshot(now_ns=0, cluster=cluster, queued=[self._records[job_id] for job_id in front]))

    def _note_waits(self, decisions: Decisions, *, first: bool) -> None:
        """What holds up one job of a lane holds up all behind it; lanes that wait in vain leave the play."""
        answers = {waiting.job_id: waiting for waiting in decisions.waiting}
        for lane, queue in list(self._lanes.items()):
            answer = None
            for _, job_id in queue:
                answer = answers.get(job_id, answer)
                if answer is None:
                    continue
                if answer.impossible:
                    self._give_up(job_id, answer.reason)
                elif first:
                    self._tell(job_id, waits=answer.reason)
                else:
                    break
            if answer is not None and answer.impossible:
                del self._lanes[lane]

    def _give_up(self, job_id: str, reason: str) -> None:
        self._tell(job_id, impossible=reason, waits=None)
        for waiting in self._needed_by.get(job_id, ()):
            if self.planned[waiting].impossible is None:
                self._give_up(waiting, f"needs {job_id}, which can never run")

    def _meet(self, job_id: str) -> None:
        """Line up whoever needed only this one more."""
        for waiting in self._needed_by.get(job_id, ()):
            self._unmet[waiting].discard(job_id)
            if not self._unmet[waiting] and self.planned[waiting].impossible is None:
                self._line_up(waiting)

    def _start(self, decisions: Decisions, wave: int) -> None:
        before, self._on_node = self._on_node, {}
        for placement in decisions.placements:
            nodes = [self._names[node_id] for node_id in placement.nodes]
            here = [self._on_node.setdefault(node_id, []) for node_id in placement.nodes]
            ended = before.get(placement.nodes[0], [])
            self._tell(
                placement.job_id,
                accelerator=placement.accelerator,
                node=", ".join(node.name for node in nodes),
                simulated=nodes[0].simulated,
                wave=wave,
                why=placement.why,
                waits_for=ended[min(len(here[0]), len(ended) - 1)] if ended else None,
            )
            for jobs in here:
                jobs.append(placement.job_id)
        started = {placement.job_id for placement in decisions.placements}
        for lane, queue in list(self._lanes.items()):
            count = sum(1 for _ in itertools.takewhile(lambda one: one[1] in started, queue))
            del queue[:count]
            if not queue:
                del self._lanes[lane]

    def _tell(self, job_id: str, **told: str | int | bool | None) -> None:
        self.planned[job_id] = dataclasses.replace(self.planned[job_id], **cast("dict[str, Any]", told))


def _queued(spec: JobSpec, sequence: int) -> JobRecord:
    return JobRecord(spec=spec, run_id="plan", sequence=sequence, state=JobState.QUEUED, reason=None, submitted_ns=0)


def _unplaced(record: JobRecord, number: int) -> PlannedJob:
    spec = record.spec
    return PlannedJob(
        order=number,
        job_id=spec.job_id,
        model=spec.model,
        adapter=adapter_summary(spec.adapter),
        seed=spec.seed,
    )


def _at_most(needs: Needs, cluster: ClusterView) -> int:
    """How many jobs with these needs the whole cluster could hold at once, at the very most."""
    if needs.share:
        return sum(node.gpus_total for node in cluster.alive) * (UNITS // needs.share)
    if needs.gpus:
        return sum(node.gpus_total // needs.gpus for node in cluster.alive)
    return sum(whole_room(node).cpus // needs.cpus for node in cluster.alive)


def _emptied(node: NodeView) -> NodeView:
    return dataclasses.replace(
        node,
        gpus_free=node.gpus_total,
        cpus_free=node.cpus_total,
        memory_free_gb=node.memory_total_gb,
        shares_free=(),
    )
