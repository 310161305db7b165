"""The door of jinja2: report rows to one self-contained HTML page, every word of theirs escaped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from orchestrator.accounting.details import Details
from orchestrator.accounting.row import ReportRow
from orchestrator.compare.table import Cell, LeftOut, compare, left_out
from orchestrator.report import carbon, headline, jobs, tables
from orchestrator.report.figures import UNKNOWN, Unit, energy_unit, format_number, split_spread
from orchestrator.report.notes import explanations, unknown_table
from orchestrator.report.plot import Series, energy_score_svg
from orchestrator.report.view import Comparison, Page, Plot
from workers.units import NS_PER_S


def build_page(
    rows: Sequence[ReportRow],
    *,
    title: str,
    generated_ns: int,
    witness: jobs.Witness | None = None,
    details: Mapping[str, Details] | None = None,
    notes: Sequence[str] = (),
) -> Page:
    """What the page says of ``rows``.

    Args:
        rows: at least one.
        title: the page's heading.
        generated_ns: when, ns since the epoch.
        witness: GPU energy by Prometheus of each job, kWh; ``None`` when no server was asked.
        details: job id to what is known of it beyond its row.
        notes: sentences about more than one job.
    """
    beyond = details or {}
    cells = compare(rows, {job_id: found.uncertainty for job_id, found in beyond.items()})
    generated = dt.datetime.fromtimestamp(generated_ns // NS_PER_S, dt.UTC)
    return Page(
        title=title,
        generated=generated.strftime("%Y-%m-%d %H:%M UTC"),
        generated_iso=generated.isoformat(),
        lede=headline.lede(rows, cells),
        notices=[*headline.notices(rows), *headline.job_notices(beyond, notes)],
        cards=headline.cards(rows, cells),
        comparisons=[_comparison(group, rows, f"comparison-{i}") for i, group in enumerate(_groups(cells), 1)],
        left_out=_left_out(left_out(rows)),
        jobs=jobs.jobs_table(sorted(rows, key=_job_order), witness),
        explanations=explanations(rows),
        sources=carbon.sources_table(rows),
        sci=carbon.sci_table(rows),
        unknown=unknown_table(rows),
        files=("report.json", "report.parquet", "reasons.json", "details.json"),
    )


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page=page)


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a task, a kind and a score: what may stand in one table and one plot."""
    groups: dict[tuple[str, str, str | None], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.kind, cell.metric), []).append(cell)
    return list(groups.values())


def _comparison(cells: Sequence[Cell], rows: Sequence[ReportRow], ident: str) -> Comparison:
    return Comparison(table=tables.comparison_table(cells, ident=ident), plot=_plot(cells, rows))


def _plot(cells: Sequence[Cell], rows: Sequence[ReportRow]) -> Plot | None:
    """Energy against score; ``None`` when fewer than two jobs have both."""
    known = [cell for cell in cells if cell.energy_kwh.mean is not None and cell.score.mean is not None]
    if sum(min(cell.energy_kwh.n, cell.score.n) for cell in known) < 2:
        return None
    unit = energy_unit(cell.energy_kwh.mean for cell in known)
    by_id = {row.job_id: row for row in rows}
    series = [
        _series(cell, label, [by_id[job] for job in cell.jobs], unit)
        for cell, label in zip(known, tables.variants(known), strict=True)
    ]
    simulated = any(cell.method == headline.SIMULATED for cell in known)
    metric = known[0].metric or "score"
    word = "Simulated energy" if simulated else "Energy"
    return Plot(
        svg=energy_score_svg(series, unit=unit.symbol, metric=metric, simulated=simulated),
        caption=f"{word} per job against final {metric}: further left costs less. Large markers are"
        " means with one standard deviation each way; faint ones are single jobs.",
        described=f"{word} against {metric}. " + "; ".join(_in_words(one, unit.symbol) for one in series) + ".",
    )


def _series(cell: Cell, label: str, rows: Sequence[ReportRow], unit: Unit) -> Series:
    points = [
        (row.energy_kwh * unit.factor, row.score)
        for row in rows
        if row.energy_kwh is not None and row.score is not None
    ]
    return Series(
        architecture=cell.architecture or cell.model,
        accelerator=cell.accelerator or UNKNOWN,
        label=label,
        energy=cell.energy_kwh.scaled(unit.factor),
        score=cell.score,
        points=points,
    )


def _in_words(one: Series, unit: str) -> str:
    label = f" ({one.label})" if one.label else ""
    energy, score = split_spread(one.energy)[0], format_number(one.score.mean)
    return f"{one.architecture} on {one.accelerator}{label}: {energy} {unit}, score {score}"


def _left_out(out: Sequence[LeftOut]) -> str:
    """The jobs that did not succeed, named, by state."""
    by_state: dict[str, list[str]] = {}
    for job in out:
        by_state.setdefault(job.state, []).append(job.job_id)
    return "; ".join(f"{len(ids)} {state} ({', '.join(ids)})" for state, ids in sorted(by_state.items()))


def _job_order(row: ReportRow) -> tuple[Any, ...]:
    """As the comparison is sorted, then by seed."""
    return (row.task, row.architecture or "~", row.accelerator or "~", row.seed, row.job_id)
