"""The page's comparison: one table of architectures × accelerators. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.compare.table import Cell, Spread
from orchestrator.report.figures import (
    UNKNOWN,
    Unit,
    energy_unit,
    format_bounds,
    format_interval,
    format_number,
    mass_unit,
    split_spread,
)
from orchestrator.report.headline import count, tag_of
from orchestrator.report.view import Column, Entry, Table, joined


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
    repeats = f"only {count(len(cell.seeds), 'seed')}" if len(cell.seeds) < cell.n else ""
    return [
        Entry(text=cell.architecture or UNKNOWN, note=_variant(cell, varying), narrow=f"on {accelerator}"),
        Entry(text=accelerator, tag=tag, note=joined(how)),
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
        bounds = cell.cegi_bounds_g if figure.title == "CEGI" else None
        if bounds is not None:
            notes.append(format_bounds(bounds, unit))
        elif spread.sd:
            notes.append(format_interval(spread, unit))
        notes += cell.cegi_reasons if figure.title == "CEGI" else ()
        entries.append(Entry(text=mean, sd=sd if spread.n else "", note=joined(notes), best=index in best))
    return Column(title=figure.title, unit=unit.symbol), entries


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
    "trainable_parameters": lambda cell: (
        "trainable parameters unknown"
        if cell.trainable_parameters is None
        else f"{format_number(cell.trainable_parameters)}\N{NO-BREAK SPACE}trainable"
    ),
    "gpu_count": lambda cell: f"{cell.gpu_count} GPU" + ("" if cell.gpu_count == 1 else "s"),
    "power_cap_w": lambda cell: (
        "no power cap" if cell.power_cap_w is None else f"cap {format_number(cell.power_cap_w)} W"
    ),
}
"""What sets cells apart besides architecture and accelerator, in words."""


def _varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The aspects that are not the same for all cells; a model that merely follows its architecture is not named."""
    architectures = {cell.architecture for cell in cells}
    return tuple(
        aspect
        for aspect, words in _ASPECTS.items()
        if (
            len({(cell.architecture, words(cell)) for cell in cells}) > len(architectures)
            if aspect == "model"
            else len({words(cell) for cell in cells}) > 1
        )
    )


def _variant(cell: Cell, varying: Sequence[str]) -> str:
    return joined([_ASPECTS[aspect](cell) for aspect in varying])


def variants(cells: Sequence[Cell]) -> list[str]:
    """For each cell, what sets it apart from others of its architecture and accelerator; empty where nothing does."""
    pairs = {(cell.architecture, cell.accelerator) for cell in cells}
    telling = [
        aspect
        for aspect, words in _ASPECTS.items()
        if len({(cell.architecture, cell.accelerator, words(cell)) for cell in cells}) > len(pairs)
    ]
    return [_variant(cell, telling) for cell in cells]


def _about(cell: Cell, varying: Sequence[str]) -> str:
    """What all cells have in common."""
    same = [words(cell) for aspect, words in _ASPECTS.items() if aspect not in varying and aspect != "model"]
    return joined([cell.kind, f"score: {cell.metric or UNKNOWN}", *same]) + ". Mean ± standard deviation per job."
