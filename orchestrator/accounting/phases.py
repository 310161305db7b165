"""When an attempt was in which phase, and what it counted there, from its metric log. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.contract import Phase
from workers.metric_log import PHASE_END, PHASE_START, MetricSample
from workers.units import NS_PER_S


@dataclass(frozen=True, kw_only=True)
class PhaseSpan:
    """One phase of one attempt, over all its ranks.

    Attributes:
        start_ns: the first rank's start; ``end_ns``: the last rank's end. ns since the epoch.
        complete: every rank that began it also ended it. When not, the attempt was cut short (or still runs), and
            the end is the last that was heard of it.
    """

    phase: Phase
    start_ns: int
    end_ns: int
    complete: bool

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return (self.end_ns - self.start_ns) / NS_PER_S


def phase_spans(samples: Sequence[MetricSample]) -> tuple[PhaseSpan, ...]:
    """The spans of an attempt's phases, in order of start; ``samples`` in order of time.

    A phase that does not end lasts until another one starts, else until the attempt's last sample. One whose start
    was lost (a torn file) begins at its first sample and is not complete.
    """
    phases = {sample.phase for sample in samples if sample.phase is not None}
    return tuple(sorted((_span(phase, samples) for phase in phases), key=lambda span: (span.start_ns, span.phase)))


def total_of(samples: Iterable[MetricSample], name: str, phase: Phase) -> float | None:
    """Sum of a counted metric over a phase, all ranks; ``None`` when it was never logged there.

    Not a number where one of the counts cannot be a count: a sum of the others would be too small.
    """
    values = [sample.value for sample in samples if sample.name == name and sample.phase is phase]
    if not all(is_count(value) for value in values):
        return math.nan
    return sum(values) if values else None


def is_count(value: float) -> bool:
    """Whether a logged value can be a count, or a length of time: finite, and not negative."""
    return math.isfinite(value) and value >= 0


def last_of(samples: Iterable[MetricSample], name: str, phase: Phase | None = None) -> float | None:
    """The last value of a metric (of a phase, or of the attempt); ``None`` when it was never logged."""
    values = [sample.value for sample in samples if sample.name == name and phase in (None, sample.phase)]
    return values[-1] if values else None


def _span(phase: Phase, samples: Sequence[MetricSample]) -> PhaseSpan:
    own = [sample for sample in samples if sample.phase is phase]
    starts = [sample for sample in own if sample.name == PHASE_START]
    ends = [sample for sample in own if sample.name == PHASE_END]
    start_ns = starts[0].time_ns if starts else own[0].time_ns
    if ends and len(ends) >= len(starts):
        return PhaseSpan(phase=phase, start_ns=start_ns, end_ns=ends[-1].time_ns, complete=bool(starts))
    later = [s.time_ns for s in samples if s.name == PHASE_START and s.phase is not phase and s.time_ns >= start_ns]
    end_ns = later[0] if later else samples[-1].time_ns
    return PhaseSpan(phase=phase, start_ns=start_ns, end_ns=end_ns, complete=False)
