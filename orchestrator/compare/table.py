"""Architectures against accelerators: what each pair cost and gained, over the jobs (seeds) that succeeded. Pure.

A *cell* is one combination of everything a report row tells about a job apart from its seed, so that a mean is
never taken over jobs that were asked to do different things.

The 95 % interval is a percentile bootstrap of the mean over the jobs of a cell. With two or three jobs it is just
their range: the smallest job alone is drawn in more than 2.5 % of the resamples (1/4 and 1/27).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.uncertainty import Range
from workers.contract import Method

RESAMPLES = 10_000
_CONFIDENCE = (2.5, 97.5)
_SEED = 20_260_101
"""Any number would do; a fixed one makes a report the same each time it is written."""
_BLOCK = 1_000_000
"""Draws held in memory at a time, so that thousands of jobs in a cell do not cost gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over several jobs.

    Attributes:
        mean: arithmetic mean of the known values; ``None`` when none is known.
        sd: sample standard deviation (n - 1); ``None`` below two values, where nothing is known of the spread.
        n: values known; jobs whose value is missing are left out, so it may be below the cell's jobs.
        low: lower end of the 95 % interval of the mean; ``None`` below two values.
        high: its upper end.
    """

    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None

    def scaled(self, factor: float) -> Spread:
        """The same figure in another unit; ``factor`` is positive."""
        mean, sd, low, high = (
            None if value is None else value * factor for value in (self.mean, self.sd, self.low, self.high)
        )
        return Spread(mean=mean, sd=sd, n=self.n, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Between what a mean may lie, with the uncertainty of its parts carried through.

    Attributes:
        low: the lower end of the interval over jobs, times the least factor of the other parts; ``high``: as well.
        made_of: the parts, in words; one that is not known says so, and adds nothing.
    """

    low: float
    high: float
    made_of: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One architecture on one accelerator.

    Attributes:
        trainable_parameters: the same for all its jobs, so that two ranks of LoRA are not averaged.
        power_cap_w: limit asked for, W; ``None`` without one.
        jobs: ids of the jobs averaged, by seed.
        seeds: their distinct seeds; fewer than ``jobs`` when a seed was run more than once.
        method: weakest energy method of its rows; ``None`` when no row has energy.
        quality: every flag of its rows' energy.
        cegi_reasons: why CEGI is missing for some or all of its jobs.
        energy_kwh: IT energy per job before PUE, kWh.
        co2e_g: operational gCO2e per job, PUE included.
        cegi_g: gCO2e per percent gained per million trainable parameters.
        co2e_bounds_g, cegi_bounds_g: their intervals over jobs, widened by how far meters disagree and by the range of
            the intensity; ``None`` where the figure, or what it is made of, is not known.
        g_per_percent: gCO2e per percent gained, of the same carbon as ``cegi_g``: what CEGI says without dividing by
            the trainable parameters, which flatters full fine-tuning.
    """

    task: str
    kind: str
    model: str
    architecture: str | None
    accelerator: str | None
    gpu_count: int | float
    adapter: str
    quantization: str
    metric: str | None
    trainable_parameters: int | None
    power_cap_w: float | None
    jobs: tuple[str, ...]
    seeds: tuple[int, ...]
    method: str | None
    quality: tuple[str, ...]
    cegi_reasons: tuple[str, ...]
    energy_kwh: Spread
    joules_per_sample: Spread
    score_base: Spread
    score: Spread
    gain_percent: Spread
    co2e_g: Spread
    cegi_g: Spread
    g_per_percent: Spread
    samples_per_second: Spread
    power_mean_w: Spread
    co2e_bounds_g: Bounds | None = None
    cegi_bounds_g: Bounds | None = None

    @property
    def n(self) -> int:
        """Jobs averaged."""
        return len(self.jobs)

    @property
    def energy_wh(self) -> Spread:
        """``energy_kwh`` in Wh, which suits small jobs."""
        return self.energy_kwh.scaled(1000)

    def as_dict(self) -> dict[str, object]:
        """The cell, JSON-ready: each figure an object of mean, sd, n, low and high."""
        return {"n": self.n, **asdict(self), "energy_wh": asdict(self.energy_wh)}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A job that is in no cell because it did not succeed."""

    job_id: str
    state: str
    architecture: str | None
    accelerator: str | None


def compare(rows: Sequence[ReportRow], ranges: Mapping[str, Range] | None = None) -> tuple[Cell, ...]:
    """One cell per combination, over the rows that succeeded, by task, architecture and accelerator.

    Rows that did not succeed are in no cell; ``left_out`` names them.

    Args:
        rows: of any jobs.
        ranges: job id to what its carbon may be, as factors of it; without them cells have no bounds.
    """
    groups: dict[tuple[object, ...], list[ReportRow]] = {}
    for row in rows:
        if row.state == "succeeded":
            groups.setdefault(_key(row), []).append(row)
    return tuple(_cell(groups[key], ranges or {}) for key in sorted(groups, key=_sort_key))


def left_out(rows: Sequence[ReportRow]) -> tuple[LeftOut, ...]:
    """The jobs that no cell counts, in the order given."""
    return tuple(
        LeftOut(job_id=row.job_id, state=row.state, architecture=row.architecture, accelerator=row.accelerator)
        for row in rows
        if row.state != "succeeded"
    )


def as_dict(rows: Sequence[ReportRow], ranges: Mapping[str, Range] | None = None) -> dict[str, object]:
    """The comparison, JSON-ready: its cells, the jobs left out, and what sd and the interval are."""
    return {
        "cells": [cell.as_dict() for cell in compare(rows, ranges)],
        "left_out": [asdict(job) for job in left_out(rows)],
        "sd": "sample standard deviation over jobs; null below two values",
        "bounds": "the interval (the mean below two values), times the least and the most of the parts in made_of",
        "interval": f"95 % percentile bootstrap of the mean, {RESAMPLES} resamples; the range for n = 2 or 3",
    }


def g_per_percent(row: ReportRow) -> float | None:
    """gCO2e per percent gained, of the carbon CEGI counts; ``None`` where CEGI is."""
    if row.cegi_g is None or row.trainable_parameters is None:
        return None
    return row.cegi_g * row.trainable_parameters / 1e6


def co2e_g(row: ReportRow) -> float | None:
    """The row's operational carbon in grams."""
    return None if row.co2e_kg is None else row.co2e_kg * 1000


def weakest_method(rows: Iterable[ReportRow]) -> str | None:
    """The method of a total over ``rows``; ``None`` when no row has energy."""
    methods = [Method(row.energy_method) for row in rows if row.energy_method is not None]
    return max(methods, key=lambda method: method.weakness).value if methods else None


def spread(values: Iterable[float | None]) -> Spread:
    """Mean, standard deviation and 95 % interval of the known values; their order does not matter."""
    known = sorted(value for value in values if value is not None)
    if len(known) < 2:
        return Spread(mean=known[0] if known else None, sd=None, n=len(known), low=None, high=None)
    low, high = _bootstrap(known)
    mean = min(max(statistics.fmean(known), known[0]), known[-1])
    return Spread(mean=mean, sd=statistics.stdev(known), n=len(known), low=low, high=high)


def _bootstrap(known: Sequence[float]) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the means of ``RESAMPLES`` resamples of sorted values."""
    # Imported here: it takes a fifth of a second, which commands that compare nothing should not cost.
    import numpy as np  # noqa: PLC0415

    values, random = np.asarray(known, dtype=np.float64), np.random.default_rng(_SEED)
    size = len(values)
    per_block = max(1, _BLOCK // size)
    blocks = [min(per_block, RESAMPLES - start) for start in range(0, RESAMPLES, per_block)]
    means = np.concatenate([values[random.integers(size, size=(count, size))].mean(axis=1) for count in blocks])
    low, high = np.clip(np.percentile(means, _CONFIDENCE), known[0], known[-1])
    return float(low), float(high)


def _key(row: ReportRow) -> tuple[object, ...]:
    """Everything that must be the same for two jobs to be averaged, in the order cells are sorted by."""
    return (
        row.task,
        row.architecture,
        row.accelerator,
        row.model,
        row.kind,
        row.adapter,
        row.quantization,
        row.metric,
        row.trainable_parameters,
        row.gpu_count,
        row.power_cap_w,
    )


def _sort_key(key: tuple[object, ...]) -> list[tuple[bool, str, float]]:
    """Unknown parts last; numbers by size, words by spelling."""
    return [
        (part is None, "", float(part)) if isinstance(part, int | float) else (part is None, str(part), 0.0)
        for part in key
    ]


def _bounds(figure: Spread, found: Sequence[Range]) -> Bounds | None:
    """The interval of a figure widened by the widest of its jobs' ranges; ``None`` where nothing is known of either."""
    if figure.mean is None or not found:
        return None
    names = dict.fromkeys(part.name for one in found for part in one.parts)
    known = {part.name for one in found for part in one.parts if part.known}
    if figure.low is None and not known:
        return None
    low = figure.mean if figure.low is None else figure.low
    high = figure.mean if figure.high is None else figure.high
    jobs = f"95 % over {figure.n} jobs" if figure.n > 1 else "one job, so no spread over jobs"
    return Bounds(
        low=low * min(one.low for one in found),
        high=high * max(one.high for one in found),
        made_of=(jobs, *(name if name in known else f"{name} (not known)" for name in names)),
    )


def _cell(unsorted: Sequence[ReportRow], ranges: Mapping[str, Range]) -> Cell:
    rows = sorted(unsorted, key=lambda row: (row.seed, row.job_id))
    first = rows[0]
    co2e, figure = spread(co2e_g(row) for row in rows), spread(row.cegi_g for row in rows)
    found = [ranges[row.job_id] for row in rows if row.job_id in ranges]
    return Cell(
        task=first.task,
        kind=first.kind,
        model=first.model,
        architecture=first.architecture,
        accelerator=first.accelerator,
        gpu_count=first.gpu_count,
        adapter=first.adapter,
        quantization=first.quantization,
        metric=first.metric,
        trainable_parameters=first.trainable_parameters,
        power_cap_w=first.power_cap_w,
        jobs=tuple(row.job_id for row in rows),
        seeds=tuple(sorted({row.seed for row in rows})),
        method=weakest_method(rows),
        quality=tuple(sorted({flag for row in rows for flag in row.energy_quality or ()})),
        cegi_reasons=tuple(sorted({row.cegi_reason for row in rows if row.cegi_reason is not None})),
        energy_kwh=spread(row.energy_kwh for row in rows),
        joules_per_sample=spread(row.joules_per_sample for row in rows),
        score_base=spread(row.score_base for row in rows),
        score=spread(row.score for row in rows),
        gain_percent=spread(row.gain_percent for row in rows),
        co2e_g=co2e,
        co2e_bounds_g=_bounds(co2e, found),
        cegi_g=figure,
        cegi_bounds_g=_bounds(figure, found),
        g_per_percent=spread(g_per_percent(row) for row in rows),
        samples_per_second=spread(row.samples_per_second for row in rows),
        power_mean_w=spread(row.power_mean_w for row in rows),
    )
