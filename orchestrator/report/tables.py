"""The page's tables: the comparison and the jobs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.row import ReportRow
from orchestrator.compare.table import Cell, Spread, co2e_g, g_per_percent
from orchestrator.report.figures import (
    UNKNOWN,
    Unit,
    energy_unit,
    format_interval,
    format_number,
    mass_unit,
    split_spread,
)
from orchestrator.report.headline import tag_of
from orchestrator.report.view import Column, Entry, Table

Witness = Mapping[str, float | None]
"""Job id to GPU energy by Prometheus, kWh; ``None`` where it could not tell."""


@dataclass(frozen=True)
class _Figure:
    """A figure of the comparison.

    Attributes:
        title: its column's title.
        of: where a cell keeps it.
        unit: the column's unit, given all cells' means.
        better: 1 where more is better, -1 where less is, 0 where that depends.
    """

    title: str
    of: Callable[[Cell], Spread]
    unit: Callable[[Sequence[float | None]], Unit]
    better: int


_FIGURES = (
    _Figure("Energy per job", lambda cell: cell.energy_kwh, energy_unit, -1),
    _Figure("Energy per sample", lambda cell: cell.joules_per_sample, lambda _: Unit("J", 1.0), -1),
    _Figure("Base score", lambda cell: cell.score_base, lambda _: Unit("", 1.0), 0),
    _Figure("Score", lambda cell: cell.score, lambda _: Unit("", 1.0), 0),
    _Figure("Gain", lambda cell: cell.gain_percent, lambda _: Unit("%", 1.0), 1),
    _Figure("CEGI", lambda cell: cell.cegi_g, mass_unit, -1),
    _Figure("CO₂e per % gained", lambda cell: cell.g_per_percent, mass_unit, -1),
)


def comparison_table(cells: Sequence[Cell], *, ident: str) -> Table:
    """Architectures × accelerators of one task, kind and score; at least one cell."""
    varying = _varying(cells)
    heads = [
        Column(title="Architecture", numeric=False),
        Column(title="Accelerator", unit="energy method", numeric=False),
        Column(title="Jobs"),
    ]
    figures = [_figure_column(figure, cells) for figure in _FIGURES]
    return Table(
        ident=ident,
        caption=f"Architecture × accelerator: {cells[0].task}",
        about=_about(cells[0], varying),
        columns=[*heads, *(column for column, _ in figures)],
        rows=[
            [*_heading_entries(cell, varying), *(entries[index] for _, entries in figures)]
            for index, cell in enumerate(cells)
        ],
    )


def _heading_entries(cell: Cell, varying: Sequence[str]) -> list[Entry]:
    """Architecture, accelerator (with how its energy was obtained) and jobs."""
    accelerator, tag = cell.accelerator or UNKNOWN, tag_of(cell.method)
    how = ["" if tag else cell.method or "energy unknown", *cell.quality]
    # Jobs that share a seed may have been asked for something the row does not tell, such as other epochs.
    repeats = f"only {len(cell.seeds)} seeds" if len(cell.seeds) < cell.n else ""
    return [
        Entry(text=cell.architecture or UNKNOWN, note=_variant(cell, varying), narrow=f"on {accelerator}"),
        Entry(text=accelerator, tag=tag, note=_joined(how)),
        Entry(text=str(cell.n), note=repeats),
    ]


def _figure_column(figure: _Figure, cells: Sequence[Cell]) -> tuple[Column, list[Entry]]:
    means = [figure.of(cell).mean for cell in cells]
    unit, best = figure.unit(means), _best(means, figure.better)
    entries = []
    for index, cell in enumerate(cells):
        spread = figure.of(cell)
        mean, sd = split_spread(spread, unit, signed=figure.title == "Gain")
        notes = [f"n {spread.n} of {cell.n}"] if 0 < spread.n < cell.n else []
        notes += [format_interval(spread, unit)] if spread.sd else []
        notes += cell.cegi_reasons if figure.title == "CEGI" else ()
        entries.append(Entry(text=mean, sd=sd if spread.n else "", note=_joined(notes), best=index in best))
    return Column(title=figure.title, unit=unit.symbol), entries


def jobs_table(rows: Sequence[ReportRow], witness: Witness | None) -> Table:
    """Every job, whatever became of it, with both energy figures."""
    units = _Units(
        energy=energy_unit(row.energy_kwh for row in rows),
        carbon=mass_unit(co2e_g(row) for row in rows),
        cegi=mass_unit(row.cegi_g for row in rows),
        per_percent=mass_unit(g_per_percent(row) for row in rows),
    )
    metrics = {row.metric for row in rows if row.metric}
    reasons = list(dict.fromkeys(row.cegi_reason for row in rows if row.cegi_g is None and row.cegi_reason))
    columns = [
        Column(title="Job", numeric=False),
        Column(title="State", numeric=False),
        Column(title="Ran on", numeric=False),
        Column(title="Energy by energy log", unit=units.energy.symbol),
        Column(title="GPU energy by Prometheus", unit=units.energy.symbol),
        Column(title="Differ by", unit="%"),
        Column(title="CO₂e", unit=units.carbon.symbol),
        Column(title="Base score"),
        Column(title="Score", unit=metrics.pop() if len(metrics) == 1 else ""),
        Column(title="Gain", unit="%"),
        Column(title="CEGI", unit=units.cegi.symbol),
        Column(title="CO₂e per % gained", unit=units.per_percent.symbol),
        Column(title="Mean power", unit="W"),
    ]
    return Table(
        ident="jobs",
        caption="Every job",
        about="Energy is that of all devices and attempts, before PUE. "
        + ("No Prometheus server was asked." if witness is None else "Prometheus is the witness of the energy log."),
        columns=columns,
        rows=[_job_entries(row, witness or {}, units, reasons, several=bool(metrics)) for row in rows],
        footnotes=[f"{_mark(number)} No CEGI: {reason}" for number, reason in enumerate(reasons, 1)],
    )


@dataclass(frozen=True, kw_only=True)
class _Units:
    """The units of the jobs table's columns."""

    energy: Unit
    carbon: Unit
    cegi: Unit
    per_percent: Unit


def _job_entries(
    row: ReportRow, witness: Witness, units: _Units, reasons: Sequence[str], *, several: bool
) -> list[Entry]:
    facts = [row.name if row.name != row.job_id else "", f"seed {row.seed}"]
    facts += [f"{row.attempts} attempts"] if row.attempts > 1 else []
    kind = [row.model, row.adapter, row.quantization if row.quantization != "none" else ""]
    mark = "" if row.cegi_reason not in reasons or row.cegi_g is not None else _mark(reasons.index(row.cegi_reason) + 1)
    failed = row.state == "failed"
    return [
        Entry(text=row.job_id, note=_joined(facts)),
        Entry(text="" if failed else row.state, tag="failed" if failed else ""),
        Entry(text=f"{row.architecture or UNKNOWN} · {row.accelerator or UNKNOWN}", note=_joined(kind)),
        _energy_entry(row, units.energy),
        Entry(text=_in(witness.get(row.job_id), units.energy)),
        Entry(text=format_number(row.energy_disagreement_percent, digits=2, signed=True)),
        Entry(text=_in(co2e_g(row), units.carbon)),
        Entry(text=format_number(row.score_base, digits=4)),
        Entry(text=format_number(row.score, digits=4), note=(row.metric or "") if several else ""),
        Entry(text=format_number(row.gain_percent, signed=True)),
        Entry(text=f"{_in(row.cegi_g, units.cegi)}{mark}"),
        Entry(text=_in(g_per_percent(row), units.per_percent)),
        Entry(
            text=format_number(row.power_mean_w),
            note="" if row.power_cap_w is None else f"cap {format_number(row.power_cap_w)}",
        ),
    ]


def _energy_entry(row: ReportRow, unit: Unit) -> Entry:
    """Total energy with its method, and the GPUs' part where that is not all of it."""
    tag = tag_of(row.energy_method)
    part = row.energy_gpu_kwh if row.energy_gpu_kwh != row.energy_kwh else None
    how = ["" if part is None else f"GPU {_in(part, unit)}", "" if tag else row.energy_method or ""]
    return Entry(text=_in(row.energy_kwh, unit), note=_joined([*how, *(row.energy_quality or ())]), tag=tag)


def _mark(number: int) -> str:
    """A footnote's mark."""
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _in(value: float | None, unit: Unit) -> str:
    return format_number(None if value is None else value * unit.factor)


def _joined(parts: Sequence[str]) -> str:
    return " · ".join(part for part in parts if part)


def _best(means: Sequence[float | None], sign: int) -> set[int]:
    """The rows with the lowest (sign -1) or highest (1) mean; none for 0, or where there is no choice."""
    known = [value for value in means if value is not None]
    if not sign or len(set(known)) < 2:
        return set()
    best = max(known) if sign > 0 else min(known)
    return {index for index, value in enumerate(means) if value == best}


_ASPECTS: Mapping[str, Callable[[Cell], str]] = {
    "model": lambda cell: cell.model,
    "adapter": lambda cell: f"adapter {cell.adapter}",
    "quantization": lambda cell: "not quantized" if cell.quantization == "none" else cell.quantization,
    "trainable_parameters": lambda cell: f"{format_number(cell.trainable_parameters)} trainable parameters",
    "gpu_count": lambda cell: f"{cell.gpu_count} GPU" + ("" if cell.gpu_count == 1 else "s"),
    "power_cap_w": lambda cell: (
        "no power cap" if cell.power_cap_w is None else f"cap {format_number(cell.power_cap_w)} W"
    ),
}
"""What sets cells apart besides architecture and accelerator, in words."""


def _varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The aspects that tell two cells of one architecture apart; a model that merely follows it does not."""
    return tuple(
        aspect
        for aspect, words in _ASPECTS.items()
        if len({(cell.architecture, words(cell)) for cell in cells}) > len({cell.architecture for cell in cells})
        or (aspect != "model" and len({words(cell) for cell in cells}) > 1)
    )


def _variant(cell: Cell, varying: Sequence[str]) -> str:
    return _joined([_ASPECTS[aspect](cell) for aspect in varying])


def variants(cells: Sequence[Cell]) -> list[str]:
    """For each cell, what sets it apart from others of its architecture; empty where nothing does."""
    varying = _varying(cells)
    return [_variant(cell, varying) for cell in cells]


def _about(cell: Cell, varying: Sequence[str]) -> str:
    """What all cells have in common."""
    same = [words(cell) for aspect, words in _ASPECTS.items() if aspect not in varying and aspect != "model"]
    return _joined([cell.kind, f"score: {cell.metric or UNKNOWN}", *same]) + ". Mean ± standard deviation per job."
