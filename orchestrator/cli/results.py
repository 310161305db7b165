"""The tables of results: jobs and comparison, as a terminal shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from orchestrator.accounting.rows import Account
from orchestrator.accounting.uncertainty import Range
from orchestrator.cli.terminal import Column, console, print_table
from orchestrator.compare.table import compare, left_out
from orchestrator.report.figures import (
    UNKNOWN,
    energy_unit,
    format_bounds,
    format_number,
    format_percent,
    format_spread,
    mass_unit,
)
from orchestrator.report.sentences import detail_sentences
from orchestrator.report.tables import variants
from workers.errors import InputError


def print_jobs(title: str, accounts: Sequence[Account], notes: Sequence[str] = ()) -> None:
    """One line per job: where it ran, what it cost by both witnesses, what it gained; ``notes`` go below."""
    rows = [account.row for account in accounts]
    energy = energy_unit([row.energy_kwh for row in rows])
    mass = mass_unit([None if row.co2e_kg is None else 1000 * row.co2e_kg for row in rows])
    cegi = mass_unit([row.cegi_g for row in rows])
    # Prometheus is the witness of GPUs alone: where a CPU is counted too, what it agrees with has a column of its own.
    more_than_gpus = any(row.energy_kwh != row.energy_gpu_kwh for row in rows)
    columns = [
        Column(heading="job"),
        Column(heading="architecture"),
        Column(heading="accelerator"),
        Column(heading="seed", numeric=True, spare=2),
        Column(heading="state"),
        Column(heading=f"energy log\n{energy.symbol}", numeric=True),
        *([Column(heading=f"its GPUs\n{energy.symbol}", numeric=True, spare=5)] if more_than_gpus else []),
        Column(heading=f"Prometheus\n{energy.symbol}", numeric=True, spare=4),
        Column(heading="differ", numeric=True, spare=3),
        Column(heading="method"),
        Column(heading=f"CO2e\n{mass.symbol}", numeric=True, spare=1),
        Column(heading="base", numeric=True, spare=1),
        Column(heading="score", numeric=True),
        Column(heading="gain", numeric=True),
        Column(heading=f"CEGI\n{cegi.symbol}", numeric=True),
    ]
    cells = [
        [
            row.job_id,
            row.architecture or UNKNOWN,
            row.accelerator or UNKNOWN,
            str(row.seed),
            row.state,
            format_number(_scaled(row.energy_kwh, energy.factor)),
            *([format_number(_scaled(row.energy_gpu_kwh, energy.factor))] if more_than_gpus else []),
            format_number(_scaled(account.witness.energy_kwh, energy.factor)),
            format_percent(row.energy_disagreement_percent),
            row.energy_method or UNKNOWN,
            format_number(_scaled(row.co2e_kg, 1000 * mass.factor)),
            format_number(row.score_base),
            format_number(row.score),
            format_percent(row.gain_percent),
            format_number(_scaled(row.cegi_g, cegi.factor)),
        ]
        for account, row in ((account, account.row) for account in accounts)
    ]
    print_table(title, columns, cells, [*notes, *_notes(accounts)])


def print_comparison(title: str, accounts: Sequence[Account]) -> None:
    """One line per architecture and accelerator: mean and sample standard deviation over seeds."""
    rows = [account.row for account in accounts]
    cells = compare(rows, ranges_of(accounts))
    energy = energy_unit([cell.energy_kwh.mean for cell in cells])
    cegi = mass_unit([cell.cegi_g.mean for cell in cells])
    per_percent = mass_unit([cell.g_per_percent.mean for cell in cells])
    told, methods = variants(cells), {cell.method for cell in cells}
    method = methods.pop() if len(methods) == 1 else None
    columns = [
        Column(heading="arch."),
        Column(heading="accel."),
        Column(heading="n", numeric=True),
        *([Column(heading="variant")] if any(told) else []),
        Column(heading=f"energy\n{energy.symbol}{f', {method}' if method else ''}", numeric=True),
        *([] if method else [Column(heading="method")]),
        Column(heading="energy/sample\nJ", numeric=True),
        Column(heading="base", numeric=True, spare=2),
        Column(heading="score", numeric=True),
        Column(heading="gain\n%", numeric=True),
        Column(heading=f"CEGI\n{cegi.symbol}", numeric=True),
        Column(heading=f"CEGI between\n{cegi.symbol}", numeric=True, spare=4),
        Column(heading=f"CO2e per %\n{per_percent.symbol}", numeric=True),
        Column(heading="samples/s", numeric=True, spare=3),
    ]
    lines = [
        [
            cell.architecture or UNKNOWN,
            cell.accelerator or UNKNOWN,
            str(cell.n),
            *([variant] if any(told) else []),
            format_spread(cell.energy_kwh, energy),
            *([] if method else [cell.method or UNKNOWN]),
            format_spread(cell.joules_per_sample),
            format_spread(cell.score_base),
            format_spread(cell.score),
            format_spread(cell.gain_percent),
            format_spread(cell.cegi_g, cegi),
            format_bounds(cell.cegi_bounds_g, cegi),
            format_spread(cell.g_per_percent, per_percent),
            format_spread(cell.samples_per_second),
        ]
        for cell, variant in zip(cells, told, strict=True)
    ]
    notes = ["mean ± sample standard deviation over jobs; CEGI: gCO2e per % gained per million trainable parameters"]
    made_of = dict.fromkeys(cell.cegi_bounds_g.made_of for cell in cells if cell.cegi_bounds_g)
    notes += [f"between: {', '.join(parts)}" for parts in made_of]
    notes += [f"left out: {job.job_id} ({job.state})" for job in left_out(rows)]
    print_table(title, columns, lines, notes)


def ranges_of(accounts: Sequence[Account]) -> dict[str, Range]:
    """Job id to what its carbon may be, as factors of it."""
    return {account.row.job_id: account.details.uncertainty for account in accounts}


def _notes(accounts: Sequence[Account]) -> list[str]:
    """What the table cannot say: simulation, sources, and why a CEGI or a witness is missing."""
    rows = [account.row for account in accounts]
    notes = []
    if any(row.energy_method == "simulated" for row in rows):
        notes.append("SIMULATED: energy, CO2e and CEGI come from simulated accelerators; scores are of real training.")
    sources = dict.fromkeys(row.carbon_source for row in rows if row.carbon_source)
    notes += [f"carbon: {source}" for source in sources]
    why = dict.fromkeys(f"no CEGI: {row.cegi_reason}" for row in rows if row.cegi_reason)
    silent = dict.fromkeys(f"no Prometheus figure: {a.witness.reason}" for a in accounts if a.witness.reason)
    told = dict.fromkeys(f"note: {note}" for account in accounts for note in account.notes)
    return [*notes, *why, *silent, *told]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def print_details(title: str, accounts: Sequence[Account]) -> None:
    """Phases of each job, one line each, and below them what its meters, units and intervals say."""
    rows, notes = [], []
    for account in accounts:
        figures, job_id = account.details.figures, account.row.job_id
        phases = cast("Mapping[str, Mapping[str, object]]", figures.get("phases", {}))
        generation = cast("Mapping[str, Mapping[str, object]]", figures.get("generation", {}))
        for name, phase in [*phases.items(), *generation.items()]:
            rows.append([job_id, name, *_phase_cells(phase)])
            if isinstance(phase.get("steady"), Mapping):
                rows.append(
                    [job_id, f"{name}, warmed up", *_phase_cells(cast("Mapping[str, object]", phase["steady"]))]
                )
        notes += [f"{job_id}: {sentence}" for sentence in detail_sentences(account.row, account.details)]
    columns = [
        Column(heading="job"),
        Column(heading="phase"),
        Column(heading="time\ns", numeric=True),
        Column(heading="energy\nWh", numeric=True),
        Column(heading="method"),
        Column(heading="CO2e\ng", numeric=True),
        Column(heading="power\nW", numeric=True),
        Column(heading="J/step", numeric=True, spare=1),
        Column(heading="J/sample", numeric=True),
        Column(heading="J/token", numeric=True, spare=2),
    ]
    print_table(title, columns, rows, [*notes, *(f"note: {note}" for account in accounts for note in account.notes)])


def _phase_cells(phase: Mapping[str, object]) -> list[str]:
    def number(name: str, factor: float = 1.0) -> str:
        value = phase.get(name)
        return format_number(value * factor if isinstance(value, int | float) else None)

    method = phase.get("energy_method")
    return [
        number("duration_s"),
        number("energy_kwh", 1000),
        str(method) if method else UNKNOWN,
        number("co2e_g"),
        number("power_mean_w"),
        number("joules_per_step"),
        number("joules_per_sample"),
        number("joules_per_token"),
    ]


def save(folder: Path, title: str, accounts: Sequence[Account], notes: Sequence[str] = ()) -> None:
    """Write the report's files and say where they are, on standard error: standard output may be JSON.

    ``notes`` are for the page.

    Raises:
        InputError: the folder cannot be written.
    """
    # Imported here: drawing a page loads matplotlib, which no other verb should wait for.
    from orchestrator.report.files import write_report  # noqa: PLC0415

    try:
        files = write_report(
            folder,
            [account.row for account in accounts],
            title=title,
            generated_ns=time.time_ns(),
            witness={account.row.job_id: account.witness.energy_kwh for account in accounts},
            details={account.row.job_id: account.details for account in accounts},
            notes=notes,
        )
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {folder}: {error}. "
            "Name another folder: wattledger report --out FOLDER; the ledger has all of it."
        ) from error
    for path in (files.html, files.json, files.parquet, files.reasons, files.details):
        console(stderr=True).print(f"wrote {path}", soft_wrap=True, markup=False, emoji=False)
