"""Jobs as their people ask after them: where each is, how far, when it ends, and what it waits for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orchestrator.lifecycle import JobRecord
from workers.progress import Progress
from workers.units import NS_PER_S


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job and what can be told of it now.

    Attributes:
        place: its place in the line of jobs that wait, from 1; ``None`` for one that is not in it.
        nodes: names of the nodes its last attempt is or was on; ids where their names are not known.
        simulated: whether these nodes' accelerators are simulated; ``None`` where that is not known.
        progress: of its running attempt; ``None`` before the first, and for a job that does not run.
        eta_s: seconds until that attempt ends, if it goes on as it did; ``None``: not known, and not guessed.
        waits: what a queued job waits for; ``None`` for others.
        impossible: no node there is could ever run it.
    """

    record: JobRecord
    place: int | None
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


def eta_s(progress: Progress, started_ns: int, now_ns: int) -> float | None:
    """Seconds until an attempt ends, if it goes on at the pace it had since it started; ``None`` before its first step.

    Counted from when the progress was noted, so that it does not grow while nothing is heard.
    """
    if progress.fraction <= 0:
        return None
    elapsed_s = (progress.updated_ns - started_ns) / NS_PER_S
    left_s = elapsed_s * (1 - progress.fraction) / progress.fraction
    return max(0.0, left_s - (now_ns - progress.updated_ns) / NS_PER_S)
