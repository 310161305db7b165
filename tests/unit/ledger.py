"""Builds small ledgers on disk for tests of the accounting: real Parquet files, times in seconds after a fixed start.

The standard job draws 3,600 J = 0.001 kWh over 14 s: load 900 J (2 s), baseline 450 J (1 s), train 1,800 J (10 s),
evaluate 450 J (1 s). Accuracy goes from 0.5 to 0.75 with 20,000 of 100,000 parameters trained on 1,000 samples.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState
from workers.contract import EnergyEntry, JobSpec, Method, Phase, Quality
from workers.environment import UNMETERED, environment_file
from workers.home import Home
from workers.metric_log import (
    PHASE_END,
    PHASE_START,
    SAMPLES,
    SCORE_PREFIX,
    TOTAL_PARAMETERS,
    TRAINABLE_PARAMETERS,
    MetricLog,
)
from workers.telemetry.energy_log import EnergyLog
from workers.units import NS_PER_S

START_S = 1_704_110_400
"""2024-01-01T12:00:00Z: no test crosses midnight by accident."""

STANDARD = {
    Phase.LOAD: (0.0, 2.0, 900),
    Phase.BASELINE: (2.0, 3.0, 450),
    Phase.TRAIN: (3.0, 13.0, 1800),
    Phase.EVALUATE: (13.0, 14.0, 450),
}
"""Phase: start s, end s, joules."""


def at(seconds: float) -> int:
    """Nanoseconds since the epoch of ``seconds`` after the start."""
    return START_S * NS_PER_S + round(seconds * NS_PER_S)


def job(*attempts: AttemptRecord, state: JobState | None = None, **spec: Any) -> JobRecord:
    """A job; its state is its last attempt's unless told otherwise."""
    if state is None:
        state = JobState(attempts[-1].state) if attempts else JobState.QUEUED
    return JobRecord(
        spec=JobSpec.model_validate({"job_id": "j", "name": "study", "task": "digits", "model": "tiny/vit"} | spec),
        run_id="run",
        sequence=0,
        state=state,
        reason=None,
        submitted_ns=at(-60),
        attempts=attempts,
    )


def attempt(
    number: int = 1, state: AttemptState = AttemptState.SUCCEEDED, *, accelerator: str | None = "T4"
) -> AttemptRecord:
    """An attempt of the first minute."""
    return AttemptRecord(
        number=number,
        state=state,
        reason="it broke" if state is AttemptState.FAILED else None,
        nodes=("f00d",),
        accelerator=accelerator,
        started_ns=at(-1),
        ended_ns=None if state is AttemptState.RUNNING else at(15),
    )


def entry(
    start_s: float,
    end_s: float,
    joules: float,
    phase: Phase | None = None,
    *,
    number: int = 1,
    device: str = "GPU-a",
    kind: str = "gpu",
    method: Method = Method.COUNTER,
    quality: frozenset[Quality] = frozenset(),
    job_id: str = "j",
) -> EnergyEntry:
    """Joules booked to an attempt."""
    return EnergyEntry(
        start_ns=at(start_s),
        end_ns=at(end_s),
        device=device,
        model="T4",
        kind=kind,
        energy_mj=round(joules * 1000),
        job_id=job_id,
        attempt=number,
        phase=phase,
        share=0.5 if Quality.SHARED in quality else 1.0,
        method=method,
        quality=quality,
    )


def standard_entries(**more: Any) -> list[EnergyEntry]:
    """The standard job's energy; ``more`` goes to every entry."""
    return [entry(start_s, end_s, joules, phase, **more) for phase, (start_s, end_s, joules) in STANDARD.items()]


class Ledger:
    """A home directory that is being filled."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self._boots = itertools.count()

    def book(self, *entries: EnergyEntry, node: str = "node-1") -> None:
        """Write energy entries as a node's agent does."""
        EnergyLog(self.home.energy(node), boot=f"boot-{next(self._boots)}").write(entries)

    def write_environment(self, text: str, *, number: int = 1, job_id: str = "j") -> None:
        """Write what an attempt kept of its environment."""
        folder = self.home.attempt_folder(job_id, number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / environment_file(0)).write_text(text)

    def say_unmetered(self, *, number: int = 1, **why: str) -> None:
        """Write why a node did not meter a kind of device."""
        self.write_environment(json.dumps({UNMETERED: why}), number=number)

    def log(self, *rows: tuple[float, Phase | None, str, float], number: int = 1, job_id: str = "j") -> None:
        """Write metric rows: (seconds, phase, name, value)."""
        with MetricLog(self.home.metrics(job_id, number), clock_ns=lambda: at(0)) as log:
            for time_s, phase, name, value in rows:
                log.log(name, value, phase=phase, time_ns=at(time_s))

    def log_phase(self, phase: Phase, start_s: float, end_s: float | None, **more: Any) -> None:
        """Write a phase's edges; one that never ended has no ``end_s``."""
        edges = [(start_s, phase, PHASE_START, 1.0)]
        if end_s is not None:
            edges.append((end_s, phase, PHASE_END, 1.0))
        self.log(*edges, **more)

    def log_standard(self, **more: Any) -> None:
        """Write the standard job's metric log."""
        for phase, (start_s, end_s, _) in STANDARD.items():
            self.log_phase(phase, start_s, end_s, **more)
        self.log(
            (2.0, Phase.LOAD, TRAINABLE_PARAMETERS, 20_000),
            (2.0, Phase.LOAD, TOTAL_PARAMETERS, 100_000),
            (3.0, Phase.BASELINE, f"{SCORE_PREFIX}accuracy", 0.5),
            (8.0, Phase.TRAIN, SAMPLES, 500),
            (13.0, Phase.TRAIN, SAMPLES, 500),
            (14.0, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.75),
            **more,
        )
