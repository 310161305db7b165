"""What ``bench_gpu`` measured, as figures: the ledger's rows and details, and the ledger beside the board's counter."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.accounting.energy import within
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.store import Store
from tests.bench.figures import table
from workers.contract import EnergyEntry
from workers.home import Home
from workers.telemetry.energy_read import read_energy

IDLE = "idle"
MODEL = "random weights, a folder"
"""What the rows say instead of where the model's folder was."""
NO_BOARD = "no real board was metered"
KEPT = ("metering", "phases", "generation", "load")
"""Sections of a job's details that are kept."""


def results(home: Home, measured: Mapping[str, Any]) -> dict[str, Any]:
    """All that is saved of one ledger, as JSON has it."""
    with contextlib.closing(Store(home.state_db)) as store:
        jobs = store.jobs()
    entries = read_energy(home)
    return {
        "about": measured["about"],
        "jobs": {account.row.job_id: _job(account) for account in build_accounts(home, jobs)},
        "steps": [_step(step, measured["device"], entries) for step in measured["steps"]],
    }


def _job(account: Account) -> dict[str, Any]:
    details = account.details.as_dict()
    reasons = {key: why for key, why in account.details.reasons.items() if key.split(".")[0] in KEPT}
    return {
        "row": {**account.row.as_dict(), "model": MODEL},
        "reasons": {**account.row.reasons, "architecture": f"{MODEL}, is not in the registry"},
        "details": {section: details[section] for section in KEPT} | {"reasons": reasons},
        "notes": list(account.notes),
    }


def _step(step: Mapping[str, Any], device: str | None, entries: Sequence[EnergyEntry]) -> dict[str, Any]:
    if device is None:
        return {"name": step["name"], "counter_j": None, "why": NO_BOARD}
    before, after = step["before"], step["after"]
    found = beside_counter(
        [entry for entry in entries if entry.device == device],
        (before["time_ns"], before["energy_mj"]),
        (after["time_ns"], after["energy_mj"]),
    )
    return {"name": step["name"], **found, "seen": step["seen"]}


def beside_counter(entries: Iterable[EnergyEntry], before: tuple[int, int], after: tuple[int, int]) -> dict[str, Any]:
    """What one board's entries add up to between two looks at its counter, each ``(time ns, energy mJ)``."""
    inside = within(entries, [(before[0], after[0])])
    booked: Counter[str] = Counter()
    for entry in inside:
        booked[entry.job_id or IDLE] += entry.energy_mj
    counted_mj, total_mj = after[1] - before[1], booked.total()
    return {
        "duration_s": round((after[0] - before[0]) / 1e9, 3),
        "counter_j": counted_mj / 1000,
        "booked_j": {who: mj / 1000 for who, mj in sorted(booked.items())},
        "total_booked_j": total_mj / 1000,
        "difference_percent": 100 * (total_mj - counted_mj) / counted_mj if counted_mj else None,
        "quality": sorted({flag.value for entry in inside for flag in entry.quality}),
    }


def to_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """Tables to read, of each run."""
    return "\n\n\n".join("\n\n".join(_parts(run)) for run in runs)


def _parts(run: Mapping[str, Any]) -> tuple[str, ...]:
    about, jobs = run["about"], run["jobs"]
    return _heading(run), _phases(jobs), _totals(jobs), _checks(run["steps"]), json.dumps(about)


def _heading(run: Mapping[str, Any]) -> str:
    """What it was measured on, and what is missing from the figures."""
    board, (first, *_) = run["about"]["board"], run["jobs"].values()
    limit = "" if board is None else f", power limit {board['power_limit_w']:g} W (its default)"
    if board is not None and board["power_limit_w"] != board["power_limit_default_w"]:
        limit = f", power limit {board['power_limit_w']:g} W (default {board['power_limit_default_w']:g} W)"
    lines = [f"{board['name']}, driver {board['driver']}{limit}" if board else NO_BOARD]
    lines.append("weights are random: what a job cost is real, what it scored means nothing")
    lines += [
        f"{kind} energy is not in the figures: {first['reasons'][key]}"
        for kind, key in (("CPU", "energy_cpu_kwh"), ("DRAM", "energy_dram_kwh"))
        if first["row"][key] is None
    ]
    return "\n".join(lines)


def _phases(jobs: Mapping[str, Any]) -> str:
    columns = ["job", "phase", "s", "Wh", "mean W", "tokens/s", "mJ/token", "method", "MFU %"]
    rows = [
        [
            job_id,
            name,
            _number(phase["duration_s"], 1),
            _number(phase["energy_kwh"], 3, 1000),
            _number(phase["power_mean_w"], 0),
            _number(phase.get("tokens_per_second"), 0),
            _number(phase.get("joules_per_token"), 2, 1000),
            str(phase["energy_method"] or "-"),
            _number(phase.get("mfu"), 1, 100),
        ]
        for job_id, job in jobs.items()
        for name, phase in job["details"]["phases"].items()
    ]
    return table(columns, rows)


def _totals(jobs: Mapping[str, Any]) -> str:
    columns = ["job", "state", "Wh", "of it GPU", "g CO2e", "Wh per 1,000 answers", "trained, M of M"]
    rows = [
        [
            job_id,
            row["state"],
            _number(row["energy_kwh"], 3, 1000),
            _number(row["energy_gpu_kwh"], 3, 1000),
            _number(row["co2e_kg"], 3, 1000),
            _number(row["wh_per_1000_inferences"], 3),
            f"{_number(row['trainable_parameters'], 1, 1e-6)} of {_number(row['total_parameters'], 1, 1e-6)}",
        ]
        for job_id, row in ((job_id, job["row"]) for job_id, job in jobs.items())
    ]
    return table(columns, rows)


def _checks(steps: Sequence[Mapping[str, Any]]) -> str:
    known = [step for step in steps if step["counter_j"] is not None]
    if not known:
        return NO_BOARD
    columns = ["step", "s", "board's counter, J", "booked, J", "of it idle", "difference %", "peak GiB", "SM MHz"]
    rows = [
        [
            step["name"],
            _number(step["duration_s"], 1),
            _number(step["counter_j"], 1),
            _number(step["total_booked_j"], 1),
            _number(step["booked_j"].get(IDLE, 0), 1),
            f"{step['difference_percent']:+.3f}",
            _number(step["seen"]["memory_peak_gib"], 1),
            _number(step["seen"]["sm_clock_mhz_median"], 0),
        ]
        for step in known
    ]
    return table(columns, rows)


def _number(value: float | None, places: int, times: float = 1) -> str:
    """To so many places; a dash for what is not known."""
    return "-" if value is None else f"{value * times:,.{places}f}"


def save(runs: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """``gpu.json`` and ``gpu.txt``."""
    folder.mkdir(exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(runs, indent=1) + "\n")
    (folder / "gpu.txt").write_text(to_text(runs) + "\n")
