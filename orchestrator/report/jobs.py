"""The page's table of jobs, each with both energy figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.row import ReportRow
from orchestrator.compare.table import co2e_g, g_per_percent
from orchestrator.report.figures import UNKNOWN, Unit, energy_unit, format_number, mass_unit
from orchestrator.report.headline import tag_of
from orchestrator.report.view import Column, Entry, Table, joined

Witness = Mapping[str, float | None]
"""Job id to GPU energy by Prometheus, kWh; ``None`` where it could not tell."""


@dataclass(frozen=True, kw_only=True)
class _Units:
    """The units of the jobs table's columns."""

    energy: Unit
    carbon: Unit
    cegi: Unit
    per_percent: Unit


def jobs_table(rows: Sequence[ReportRow], witness: Witness | None) -> Table:
    """Every job, whatever became of it, with both energy figures."""
    units = _Units(
        energy=energy_unit(row.energy_kwh for row in rows),
        carbon=mass_unit(co2e_g(row) for row in rows),
        cegi=mass_unit(row.cegi_g for row in rows),
        per_percent=mass_unit(g_per_percent(row) for row in rows),
    )
    metrics = {row.metric for row in rows if row.metric}
    only = next(iter(metrics)) if len(metrics) == 1 else ""
    reasons = list(dict.fromkeys(row.cegi_reason for row in rows if row.cegi_g is None and row.cegi_reason))
    return Table(
        ident="jobs",
        caption="Every job",
        about=f"Energy is that of all devices and attempts, before PUE. {_testimony(witness)}",
        columns=_columns(units, only),
        rows=[_job_entries(row, witness or {}, units, reasons, several=not only) for row in rows],
        footnotes=[f"{_mark(number)} No CEGI: {reason}" for number, reason in enumerate(reasons, 1)],
    )


def _testimony(witness: Witness | None) -> str:
    if witness is None:
        return "No Prometheus server was asked."
    if all(value is None for value in witness.values()):
        return "Prometheus gave no figure for any job; why is among the unknown fields below."
    return "Prometheus is the witness of the energy log."


def _columns(units: _Units, metric: str) -> list[Column]:
    return [
        Column(title="Job", numeric=False),
        Column(title="State", numeric=False),
        Column(title="Ran on", numeric=False),
        Column(title="Energy by energy log", unit=units.energy.symbol),
        Column(title="GPU energy by Prometheus", unit=units.energy.symbol),
        Column(title="Differ by", unit="%"),
        Column(title="CO₂e", unit=units.carbon.symbol),
        Column(title="Base score"),
        Column(title="Score", unit=metric),
        Column(title="Gain", unit="%"),
        Column(title="CEGI", unit=units.cegi.symbol),
        Column(title="CO₂e per % gained", unit=units.per_percent.symbol),
        Column(title="Mean power", unit="W"),
    ]


def _job_entries(
    row: ReportRow, witness: Witness, units: _Units, reasons: Sequence[str], *, several: bool
) -> list[Entry]:
    facts = [row.name if row.name != row.job_id else "", f"seed {row.seed}"]
    facts += [f"{row.attempts} attempts"] if row.attempts > 1 else []
    kind = [row.model, row.adapter, row.quantization if row.quantization != "none" else ""]
    mark = "" if row.cegi_reason not in reasons or row.cegi_g is not None else _mark(reasons.index(row.cegi_reason) + 1)
    failed = row.state == "failed"
    return [
        Entry(text=row.job_id, note=joined(facts)),
        Entry(text="" if failed else row.state, tag="failed" if failed else ""),
        Entry(text=f"{row.architecture or UNKNOWN} · {row.accelerator or UNKNOWN}", note=joined(kind)),
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
    return Entry(text=_in(row.energy_kwh, unit), note=joined([*how, *(row.energy_quality or ())]), tag=tag)


def _mark(number: int) -> str:
    """A footnote's mark."""
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _in(value: float | None, unit: Unit) -> str:
    return format_number(None if value is None else value * unit.factor)
