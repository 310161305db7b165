"""The score of a base model that another job took: ``evaluation.baseline: shared``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.accounting.phases import last_of
from orchestrator.lifecycle import JobRecord
from workers.contract import Phase
from workers.home import Home
from workers.metric_log import SCORE_PREFIX, MetricRead, read_metric_log


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the job that scored a base model logged.

    Attributes:
        attempt: its last that left a metric log; ``None``: none did.
        log: that attempt's metric log.
    """

    job_id: str
    attempt: int | None
    log: MetricRead

    @property
    def name(self) -> str:
        """Which job and attempt, in words."""
        return f"job {self.job_id}" if self.attempt is None else f"attempt {self.attempt} of job {self.job_id}"

    def score(self, metric: str) -> float | None:
        """The base model's; ``None`` where it was not logged."""
        return last_of(self.log.samples, SCORE_PREFIX + metric, Phase.EVALUATE)

    def unlogged(self, metric: str) -> str:
        """Why there is no score."""
        what = "left no metric log" if self.attempt is None else f"logged no {metric} in the evaluate phase"
        return f"{self.name}, which scores the base model for this one, {what}"


def read_baselines(home: Home, jobs: Iterable[JobRecord]) -> dict[str | None, Baseline]:
    """Every baseline that ``jobs`` share, by its job id, each read once."""
    shared = {job.spec.baseline_job for job in jobs} - {None}
    return {job_id: _read(home, job_id) for job_id in shared if job_id is not None}


def _read(home: Home, job_id: str) -> Baseline:
    folders = home.metrics(job_id, 1).parent.glob("attempt=*")
    numbers = [int(match[1]) for folder in folders if (match := re.fullmatch(r"attempt=([1-9]\d*)", folder.name))]
    if not numbers:
        return Baseline(job_id=job_id, attempt=None, log=MetricRead(samples=(), unreadable=()))
    return Baseline(job_id=job_id, attempt=max(numbers), log=read_metric_log(home, job_id, max(numbers)))
