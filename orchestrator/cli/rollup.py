"""``wattledger rollup``: sums over the whole ledger, in which nothing is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from orchestrator.accounting.rollup import DIMENSIONS, Missing, RollupRow, missing
from orchestrator.accounting.rollup import rollup as roll_up
from orchestrator.accounting.rollup_carbon import Key, LineCarbon, key_of, rollup_carbon
from orchestrator.accounting.unknown import Unknown
from orchestrator.carbon.intensity import intensity_of
from orchestrator.carbon.sources import HourlySources
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.report.figures import UNKNOWN, energy_unit, format_number, mass_unit
from workers.contract import Accounting
from workers.errors import InputError
from workers.units import mj_to_kwh


def rollup(
    by: Annotated[
        str, typer.Argument(metavar="NAMES", help=f"Separated by commas: {', '.join(DIMENSIONS)}.", show_default=False)
    ] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE,...", help="Only these, such as node=n1,n2; repeat to ask for more."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="Where the cluster is, for the CO2e of what no job drew; jobs have their own."),
    ] = None,
    pue: Annotated[
        float | None, typer.Option(min=1.0, help="With --region: the facility's PUE.", show_default="survey average")
    ] = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Sum all energy and CO2e of the ledger: of jobs, of idle devices, and of jobs the ledger does not know.

    The lines add up to everything that was metered, to the millijoule. It costs by what is new since the last time.

    For the cluster and its owner. For a table of jobs with scores and units: report --by, which counts what Prometheus
    stood in for, and CPU watts a manifest assumes, too.
    """
    # Imported here: loading duckdb takes a tenth of a second that no other verb should pay.
    from orchestrator.books.database import open_books  # noqa: PLC0415
    from orchestrator.books.refresh import refresh  # noqa: PLC0415

    names, conditions = [name.strip() for name in by.split(",") if name.strip()], _conditions(where or [])
    ledger, nobodys = options.home_of(home), _nobodys(region, pue)
    with contextlib.closing(HourlySources(ledger)) as sources, open_books(ledger) as books:
        refresh(books)
        lacking = missing(books)
        rows = roll_up(books, names, where=conditions)
        carbon = rollup_carbon(books, names, where=conditions, nobodys=nobodys, sources=sources)
    if as_json:
        options.print_json([row.as_dict() | _carbon_record(carbon[key_of(row)]) for row in rows])
        return
    _show(names, rows, carbon, lacking)


def _nobodys(region: str | None, pue: float | None) -> Accounting | None:
    """Region and PUE of what no job drew.

    Raises:
        UnknownNameError: the region is not in the table; names the nearest.
        InputError: a PUE alone.
    """
    if region is None:
        if pue is not None:
            raise InputError("--pue is of what no job drew, and grams of that need its region too: add --region.")
        return None
    return Accounting(region=intensity_of(region).region, pue=pue)


def _carbon_record(found: LineCarbon | Unknown) -> dict[str, object]:
    if isinstance(found, Unknown):
        return {"co2e_kg": None, "co2e_reason": found.reason, "carbon_sources": []}
    return {"co2e_kg": found.co2e_kg, "co2e_reason": None, "carbon_sources": list(found.sources)}


def _conditions(given: Sequence[str]) -> dict[str, list[str]]:
    """Dimension to values.

    Raises:
        InputError: a condition has no equals sign.
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals:
            raise InputError(f"{text!r} is no condition: write a name, '=' and values, such as node=n1,n2.")
        found[name.strip()] = [value.strip() for value in values.split(",")]
    return found


def _show(
    by: Sequence[str], rows: Sequence[RollupRow], carbon: Mapping[Key, LineCarbon | Unknown], lacking: Missing
) -> None:
    energy = energy_unit([row.energy_kwh for row in rows])
    grams = {key: None if isinstance(found, Unknown) else 1000 * found.co2e_kg for key, found in carbon.items()}
    mass = mass_unit(grams.values())
    total_mj = sum(row.energy_mj for row in rows)
    columns = [
        *(Column(heading=name.replace("_", " ")) for name in by),
        Column(heading="account"),
        Column(heading="jobs", numeric=True, spare=1),
        Column(heading=f"energy\n{energy.symbol}", numeric=True),
        Column(heading="share\n%", numeric=True, spare=2),
        Column(heading=f"wasted\n{energy.symbol}", numeric=True, spare=3),
        Column(heading=f"CO2e\n{mass.symbol}", numeric=True),
        Column(heading="method"),
        Column(heading="flags"),
    ]
    cells = [
        [
            *(value or UNKNOWN for value in row.keys.values()),
            row.account,
            str(row.jobs) if row.account != "idle" else UNKNOWN,
            format_number(row.energy_kwh * energy.factor),
            format_number(100 * row.energy_mj / total_mj) if total_mj else UNKNOWN,
            format_number(mj_to_kwh(row.wasted_mj) * energy.factor) if row.account == "job" else UNKNOWN,
            format_number(None if (of_row := grams[key_of(row)]) is None else of_row * mass.factor),
            row.method.value,
            ", ".join(sorted(row.quality)),
        ]
        for row in rows
    ]
    title = f"Energy by {', '.join(by)}" if by else "Energy"
    print_table(title, columns, cells, [*_notes(rows, total_mj, lacking), *_carbon_notes(carbon.values())])


def _carbon_notes(carbon: Iterable[LineCarbon | Unknown]) -> list[str]:
    """Where grams come from, and why some lines have none."""
    found = list(carbon)
    sources = dict.fromkeys(source for one in found if isinstance(one, LineCarbon) for source in one.sources)
    why = dict.fromkeys(one.reason for one in found if isinstance(one, Unknown))
    return [*(f"carbon: {source}" for source in sources), *(f"no CO2e: {reason}" for reason in why)]


def _notes(rows: Sequence[RollupRow], total_mj: int, lacking: Missing) -> list[str]:
    parts = {
        account: sum(row.energy_mj for row in rows if row.account == account)
        for account in ("job", "idle", "unattributed")
    }
    told = " + ".join(f"{account} {part}" for account, part in parts.items())
    notes = [f"all of these: {mj_to_kwh(total_mj):.6g} kWh; in mJ: {told} = {total_mj}"]
    if any(row.method.value == "simulated" for row in rows):
        notes.append("SIMULATED: energy of the lines that say so comes from simulated devices.")
    told_of = [
        (lacking.files, "file(s) of the energy log cannot be read: what they hold is missing (flag gap)"),
        (lacking.attempts, "attempt(s) that ended have no energy in the log: theirs is missing here"),
        (
            lacking.assumed,
            "job(s) have CPU or DRAM watts from their manifest, which their reports count and a roll-up does not",
        ),
    ]
    return notes + [f"{count} {sentence}" for count, sentence in told_of if count]
