"""Jobs as their people ask after them: where each is, how far, when it ends, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from orchestrator.lifecycle import JobRecord
from orchestrator.queue_view.line import Line
from orchestrator.scheduling.snapshot import NodeView
from workers.home import Home
from workers.progress import Progress, read_progress
from workers.units import NS_PER_S


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job and what can be told of it now.

    Attributes:
        place: its place in line, from 1; ``None`` for one that is not in it. ``in_line``: how many are in it.
        nodes: names of the nodes its last attempt is or was on; ids where their names are not known.
        simulated: whether these nodes' accelerators are simulated; ``None`` where that is not known.
        progress: of its running attempt; ``None`` before the first, and for a job that does not run.
        eta_s: seconds until that attempt ends, if it goes on as it did; ``None``: not known, and not guessed.
        waits: what a queued job waits for; ``None`` for others.
        impossible: no node there is could ever run it.
    """

    record: JobRecord
    place: int | None
    in_line: int
    nodes: tuple[str, ...]
    simulated: bool | None
    progress: Progress | None
    eta_s: float | None
    waits: str | None
    impossible: bool

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id

    @property
    def why(self) -> str | None:
        """Why it is where it is: what it waits for, else the reason of its state."""
        return self.waits or self.record.reason

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; times in ns since the epoch, UTC."""
        record, progress = self.record, self.progress
        return {
            "job_id": record.job_id,
            "run_id": record.run_id,
            "name": record.spec.name,
            "model": record.spec.model,
            "seed": record.spec.seed,
            "user": record.user,
            "state": record.state.value,
            "reason": record.reason,
            "waits_for": self.waits,
            "impossible": self.impossible,
            "place": self.place,
            "in_line": self.in_line,
            "priority": record.spec.schedule.priority,
            "needs": list(record.spec.needs),
            "submitted_ns": record.submitted_ns,
            "ready_ns": record.ready_ns or None,
            "nodes": list(self.nodes),
            "simulated": self.simulated,
            "attempts": [asdict(attempt) for attempt in record.attempts],
            "progress": None if progress is None else {**asdict(progress), "fraction": progress.fraction},
            "eta_s": self.eta_s,
        }


def view_of(home: Home, job: JobRecord, line: Line | None, nodes: Mapping[str, NodeView], *, now_ns: int) -> JobView:
    """What can be told of a job; ``line`` is ``None`` for one that has ended, ``nodes`` are those known, by id."""
    last = job.attempts[-1] if job.attempts else None
    ids = last.nodes if last else ()
    on = [nodes[node_id] for node_id in ids if node_id in nodes]
    running = last if job.state.holds_place else None
    progress = read_progress(home, job.job_id, running.number) if running else None
    return JobView(
        record=job,
        place=line.places.get(job.job_id) if line else None,
        in_line=len(line.places) if line else 0,
        nodes=tuple(nodes[node_id].name if node_id in nodes else node_id for node_id in ids),
        simulated=any(node.simulated for node in on) if on and len(on) == len(ids) else None,
        progress=progress,
        eta_s=eta_s(progress, now_ns) if progress else None,
        waits=line.reasons.get(job.job_id) if line else None,
        impossible=line is not None and job.job_id in line.impossible,
    )


def eta_s(progress: Progress, now_ns: int) -> float | None:
    """Seconds until an attempt ends, if it goes on at its own pace; ``None`` where that is not known, never a guess.

    What is left of the phase it is in goes at that phase's pace, later phases at the pace of all units so far. What an
    earlier attempt did took no time of this one. While nothing is heard of it, time passes and the estimate falls.
    """
    units = progress.job_done - progress.job_carried
    if not progress.job_total or not progress.started_ns or units <= 0:
        return None
    mean_ns = (progress.updated_ns - progress.started_ns) / units
    here = progress.done - progress.carried
    pace_ns = (progress.updated_ns - progress.phase_started_ns) / here if here > 0 else mean_ns
    left_here = max(0, progress.total - progress.done)
    later = max(0, progress.job_total - progress.job_done - left_here)
    left_ns = left_here * pace_ns + later * mean_ns - (now_ns - progress.updated_ns)
    return max(0.0, left_ns / NS_PER_S)
