"""The first screen: what did that cost, and was it worth it? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from orchestrator.accounting.details import Details
from orchestrator.accounting.row import ReportRow
from orchestrator.compare.table import Cell, co2e_g, weakest_method
from orchestrator.report.figures import UNKNOWN, format_g, format_percent, format_wh
from orchestrator.report.view import Card, Notice
from workers.contract import Method

SIMULATED = Method.SIMULATED.value
_NOT_METERED = {
    Method.MODELLED.value: "computed from a device's rated power and utilisation",
    Method.REPLAYED.value: "read from a recording",
}


def count(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tag_of(method: str | None) -> str:
    """The method where a reader must not take the figure for a measurement; else nothing."""
    return method if method in {SIMULATED, *_NOT_METERED} else ""


def total(rows: Sequence[ReportRow], figure: Callable[[ReportRow], float | None]) -> float | None:
    """Sum over the rows that have the figure; ``None`` when none has it."""
    known = [value for row in rows if (value := figure(row)) is not None]
    return sum(known) if known else None


def best_cell(cells: Sequence[Cell]) -> Cell | None:
    """The cell with the lowest mean CEGI; ``None`` when no cell has one."""
    known = [cell for cell in cells if cell.cegi_g.mean is not None]
    return min(known, key=lambda cell: cell.cegi_g.mean or 0.0, default=None)


def where(cell: Cell) -> str:
    """``vit on T4``."""
    return f"{cell.architecture or cell.model} on {cell.accelerator or 'an unknown accelerator'}"


def lede(rows: Sequence[ReportRow], cells: Sequence[Cell]) -> str:
    """The answer in three sentences."""
    succeeded = sum(row.state == "succeeded" for row in rows)
    energy, carbon = total(rows, lambda row: row.energy_kwh), total(rows, co2e_g)
    first = (
        f"{succeeded} of {count(len(rows), 'job')} succeeded. All jobs together used"
        f" {'an unknown amount of energy' if energy is None else format_wh(energy)} and caused"
        f" {'an unknown amount of' if carbon is None else format_g(carbon)} CO₂e{_said(weakest_method(rows))}."
    )
    best = best_cell(cells)
    if best is None:
        return f"{first} No job gained quality at a known cost, so there is no CEGI."
    return (
        f"{first} The cheapest gain was {where(best)}: {format_percent(best.gain_percent.mean)} in {best.metric}"
        f" at {format_g(best.g_per_percent.mean)} CO₂e per percent gained{_said(best.method)}."
    )


def _said(method: str | None) -> str:
    return f" ({tag_of(method)})" if tag_of(method) else ""


def notices(rows: Sequence[ReportRow]) -> list[Notice]:
    """What a reader must know of the energy figures before reading them."""
    methods = Counter(row.energy_method for row in rows)
    found = []
    if methods[SIMULATED]:
        found.append(
            Notice(
                word="SIMULATED",
                loud=True,
                text=f"The energy of {methods[SIMULATED]} of {count(len(rows), 'job')} comes from simulated devices."
                " No meter measured it, and everything computed from it (CO₂e, CEGI, joules, watts) is simulated too.",
            )
        )
    found += [
        Notice(
            word=method.upper(),
            loud=False,
            text=f"The energy of {methods[method]} of {count(len(rows), 'job')} was {meaning}, not measured.",
        )
        for method, meaning in _NOT_METERED.items()
        if methods[method]
    ]
    return found


def job_notices(details: Mapping[str, Details], notes: Sequence[str] = ()) -> list[Notice]:
    """``notes``, and those of single jobs: lost logs, clocks that are off, budgets exceeded. A sentence once."""
    told = dict.fromkeys([*notes, *(note for found in details.values() for note in found.notes)])
    return [Notice(word="NOTE", loud=False, text=f"{note[0].upper()}{note[1:]}.") for note in told]


def cards(rows: Sequence[ReportRow], cells: Sequence[Cell]) -> list[Card]:
    """Jobs, energy, carbon and the best CEGI."""
    tag = tag_of(weakest_method(rows))
    return [
        _jobs_card(rows),
        _split(Card(label="Energy", value=format_wh(total(rows, lambda row: row.energy_kwh)),
                    note=_energy_note(rows), tag=tag)),
        _split(Card(label="CO₂e", value=format_g(total(rows, co2e_g)),
                    note=_unknown_note(rows, co2e_g) or "PUE included, location-based", tag=tag)),
        _cegi_card(best_cell(cells)),
    ]  # fmt: skip


def _jobs_card(rows: Sequence[ReportRow]) -> Card:
    states = Counter(row.state for row in rows)
    others = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if state != "succeeded")
    return Card(
        label="Jobs", value=str(states["succeeded"]), unit=f"of {len(rows)} succeeded", note=others or "none failed"
    )


def _energy_note(rows: Sequence[ReportRow]) -> str:
    wasted, all_of_it = (
        total(rows, figure) for figure in (lambda row: row.energy_wasted_kwh, lambda row: row.energy_kwh)
    )
    parts = [
        f"{format_percent(100 * wasted / all_of_it, signed=False)} of it in failed attempts"
        if wasted and all_of_it
        else "",
        _unknown_note(rows, lambda row: row.energy_kwh),
    ]
    return "; ".join(part for part in parts if part) or "all jobs, before PUE"


def _unknown_note(rows: Sequence[ReportRow], figure: Callable[[ReportRow], float | None]) -> str:
    missing = sum(figure(row) is None for row in rows)
    return f"{count(missing, 'job')} unknown, not counted" if missing else ""


def _cegi_card(best: Cell | None) -> Card:
    if best is None:
        return Card(label="Best CEGI", value=UNKNOWN, note="no job has one; reasons below")
    note = f"{where(best)}; {format_g(best.g_per_percent.mean)} CO₂e per % gained"
    return _split(Card(label="Best CEGI", value=format_g(best.cegi_g.mean), note=note, tag=tag_of(best.method)))


def _split(card: Card) -> Card:
    """The unit taken off the value, to be set smaller."""
    value, _, unit = card.value.partition(" ")
    return Card(label=card.label, value=value, unit=unit, note=card.note, tag=card.tag)
