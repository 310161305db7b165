"""The metric log: what an attempt said about itself, and when. One row is one named value.

Rows go to disk about once a second and at every edge of a phase, so a killed attempt loses a second at most and its
energy can still be joined to the phases it reached.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.contract import Phase
from workers.home import Home
from workers.parquet import Column, read_folder, write_atomically
from workers.units import NS_PER_S

PHASE_START = "phase_start"
"""Value 1.0, at the phase's start."""
PHASE_END = "phase_end"
"""Value 1.0, at the phase's end; a phase without it was cut short."""
LOSS = "loss"
EVAL_LOSS = "eval_loss"
"""Mean loss of what early stopping holds out of the training split, after that step."""
SAMPLES = "samples"
"""Samples done in that step (not a running total)."""
TOKENS = "tokens"
"""Tokens done in that step (not a running total)."""
TOKENS_PREFILL = "tokens_prefill"
"""Prompt tokens read in that step of a generation; ``TOKENS_DECODE``: tokens written. Both are part of ``TOKENS``."""
TOKENS_DECODE = "tokens_decode"
PREFILL_SECONDS = "prefill_seconds"
"""How long the prompt of that step was read, s; logged at the end of it, so that the row tells the span.

``DECODE_SECONDS``: the same of writing the answer.
"""
DECODE_SECONDS = "decode_seconds"
DENOISING_STEPS = "denoising_steps"
"""Steps from noise to picture, of each picture made in that step."""
TRAINABLE_PARAMETERS = "trainable_parameters"
"""Logical parameters that are trained: a packed 4-bit weight counts as what it unpacks to."""
TOTAL_PARAMETERS = "total_parameters"
POWER_CAP_WATTS = "power_cap_watts"
"""Power limit set on each of the attempt's devices, W."""
RESUMED_FROM_ATTEMPT = "resumed_from_attempt"
"""Number of the attempt whose checkpoint this one went on from; logged by none that began at the beginning."""
SCORES_FROM_ATTEMPT = "scores_from_attempt"
"""Number of the attempt whose checkpoint the scores of that phase are from: they are repeated, not taken again."""
INFERENCES = "inferences"
"""Inferences done and counted (warm-up left out), at the end of each repeat of them."""
SCORE_PREFIX = "score/"
"""A score is logged as ``score/<metric>`` in the phase that took it: baseline or evaluate."""

_SCHEMA = {
    "ts": Column.TIME,
    "rank": Column.INT32,
    "phase": Column.TEXT,
    "step": Column.INT64,
    "name": Column.TEXT,
    "value": Column.FLOAT64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSample:
    """One row of the log.

    Attributes:
        time_ns: when, ns since the epoch, to the microsecond.
        rank: which process of the attempt said it.
        step: optimiser step, or batch; ``None`` where there is none.
    """

    time_ns: int
    rank: int
    phase: Phase | None
    step: int | None
    name: str
    value: float


class MetricLog:
    """Writes one rank's part of an attempt's log. For one thread; close it, or use it as a context manager.

    Args:
        folder: ``Home.metrics(job_id, attempt)``; made at the first flush. Files already there are kept.
        rank: this process's rank in the attempt.
        clock_ns: wall clock, ns since the epoch.
        flush_every_ns: age of the oldest unwritten row at which the next row triggers a flush, ns.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int = 0,
        clock_ns: Callable[[], int] = time.time_ns,
        flush_every_ns: int = NS_PER_S,
    ) -> None:
        self._folder, self._rank = folder, rank
        self._clock_ns, self._flush_every_ns = clock_ns, flush_every_ns
        self._next_file = _next_file(folder, rank)
        self._rows: list[MetricSample] = []
        self._oldest_ns = 0
        self._closed = False

    def log(
        self,
        name: str,
        value: float,
        *,
        phase: Phase | None,
        step: int | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Add one row, at ``time_ns`` or now.

        Raises:
            ValueError: the log is closed.
        """
        if self._closed:
            raise ValueError(f"the metric log in {self._folder} is closed; {name} came too late.")
        now = self._clock_ns()
        if not self._rows:
            self._oldest_ns = now
        at = now if time_ns is None else time_ns
        sample = MetricSample(time_ns=at, rank=self._rank, phase=phase, step=step, name=name, value=float(value))
        self._rows.append(sample)
        if name in (PHASE_START, PHASE_END) or now - self._oldest_ns >= self._flush_every_ns:
            self.flush()

    def flush(self) -> None:
        """Write what is unwritten as one file; nothing when there is nothing."""
        if not self._rows:
            return
        path = self._folder / f"part-{self._rank}-{self._next_file:06d}.parquet"
        columns: dict[str, Sequence[object]] = {
            "ts": [row.time_ns for row in self._rows],
            "rank": [row.rank for row in self._rows],
            "phase": [row.phase for row in self._rows],
            "step": [row.step for row in self._rows],
            "name": [row.name for row in self._rows],
            "value": [row.value for row in self._rows],
        }
        write_atomically(path, columns, _SCHEMA)
        self._next_file += 1
        self._rows.clear()

    def close(self) -> None:
        """Flush, and take no more rows; closing twice is fine."""
        self.flush()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class MetricRead:
    """What was read of an attempt's log.

    Attributes:
        samples: in order of time.
        unreadable: torn files; what they held is missing, so a sum over the samples is too small.
    """

    samples: tuple[MetricSample, ...]
    unreadable: tuple[Path, ...]


def read_metrics(home: Home, job_id: str, attempt: int) -> tuple[MetricSample, ...]:
    """An attempt's log in order of time, all ranks; an attempt that logged nothing reads as empty.

    Rows of one rank and time stay in the order they were logged. Torn files are ignored.

    Raises:
        InputError: the job id or the attempt is not one.
    """
    return read_metric_log(home, job_id, attempt).samples


def read_metric_log(home: Home, job_id: str, attempt: int) -> MetricRead:
    """The same samples, and the files that could not be read.

    Raises:
        InputError: the job id or the attempt is not one.
    """
    read = read_folder(home.metrics(job_id, attempt), _SCHEMA)
    samples = [
        MetricSample(
            time_ns=ts, rank=rank, phase=None if phase is None else Phase(phase), step=step, name=name, value=v
        )
        for ts, rank, phase, step, name, v in zip(*(read.columns[name] for name in _SCHEMA), strict=True)
    ]
    ordered = sorted(samples, key=lambda sample: sample.time_ns)
    return MetricRead(samples=tuple(ordered), unreadable=read.unreadable)


def resumed_from(samples: Iterable[MetricSample]) -> int | None:
    """The attempt whose checkpoint this log's attempt went on from; ``None``: it began at the beginning."""
    values = [sample.value for sample in samples if sample.name == RESUMED_FROM_ATTEMPT]
    return int(values[-1]) if values and values[-1].is_integer() else None


def _next_file(folder: Path, rank: int) -> int:
    """One past the highest number in use, so that a log opened again never overwrites."""
    numbers = [re.fullmatch(rf"part-{rank}-(\d+)\.parquet", path.name) for path in folder.glob("part-*.parquet")]
    return max((int(match[1]) + 1 for match in numbers if match), default=0)
