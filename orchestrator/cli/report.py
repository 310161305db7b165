"""``wattledger report``: what each job of a run, or of the whole ledger, cost."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.accounting.rows import Account
from orchestrator.accounting.slices import nobodys
from orchestrator.cli import options
from orchestrator.cli.listing import FORMATS, show
from orchestrator.cli.results import print_details, print_jobs, save
from orchestrator.cli.terminal import Column, print_table
from orchestrator.custody import settle_orphans
from orchestrator.lifecycle import JobRecord
from orchestrator.report.figures import format_wh
from orchestrator.report.groups import SLICED, group
from orchestrator.report.headline import tag_of
from orchestrator.report.records import Condition, Record, record_of, sort_records
from workers.errors import InputError, UnknownNameError
from workers.home import Home
from workers.telemetry.energy_log import utc_date
from workers.units import mj_to_kwh

DEFAULT_COLUMNS = ("job_id", "architecture", "accelerator", "seed", "state", "energy_kwh", "energy_method", "co2e_kg",
                   "metric", "score_base", "score", "gain_percent", "cegi_g")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a report is about: its title, and its jobs with their books."""

    title: str
    jobs: tuple[JobRecord, ...]
    accounts: tuple[Account, ...]


def report(
    run: options.RunArgument = None,
    as_json: options.JsonOption = False,
    why: Annotated[bool, typer.Option("--why", help="Show why each unknown figure is unknown.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Show phases, units, meters and intervals of each job.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All runs of the ledger, not one.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only jobs that meet it: accelerator=L4,T4, model=tiny/*, energy_kwh>0.5, date>=2026-01-01, user=ada, "
            "cegi_g!=null; repeat to ask for more.",
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="KEYS", help="Sums by model, accelerator, user, team, project, node, day, ...")
    ] = None,
    sort: Annotated[str | None, typer.Option(metavar="FIELDS", help="Sort by fields; -energy_kwh: most first.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="FIELDS", help="Which fields to show.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}; --out names a file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for report.html, .json, .parquet, reasons.json, details.json; with --format, the one file.",
        ),
    ] = None,
    prometheus: options.PrometheusOption = None,
    prometheus_config: options.PrometheusConfigOption = None,
    home: options.HomeOption = None,
) -> None:
    """Show what each job cost and gained; --json prints one report row per job, and --by sums.

    With --all, sums by nothing but node and day have what no job drew, too: idle devices, and jobs nobody submitted.
    Sums are of the figures in jobs' rows: what Prometheus stood in for, and CPU watts a manifest assumes, are counted,
    and jobs whose energy is unknown are told apart. For all that was metered, at any scale: rollup.
    """
    if form is not None and form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    conditions = [Condition.parse(text) for text in where or ()]
    ledger = options.home_of(home)
    loaded = load_accounts(ledger, run, prometheus, prometheus_config, every=every)
    pairs = _kept(loaded, conditions)
    beside: Sequence[str] = ()
    if why:
        _show_why(loaded.title, [account for account, _ in pairs], as_json=as_json)
    elif details:
        _show_details(loaded.title, [account for account, _ in pairs], as_json=as_json)
    elif by is not None or columns is not None or form is not None:
        records, chosen = _listed(ledger, loaded, pairs, _split(by), is_all=every and not conditions)
        records = sort_records(records, _split(sort))
        shown = _split(columns) or chosen
        show(
            f"{'Sums' if by else 'Jobs'} of {loaded.title}",
            records,
            shown,
            form=form or ("json" if as_json else "table"),
            out=out,
        )
        return
    else:
        pairs = _sorted(pairs, _split(sort))
        if every and not conditions and not (as_json and out is None):
            beside = _beside(ledger, loaded)
        _show_jobs(loaded.title, [account for account, _ in pairs], beside, as_json=as_json)
    if out is not None:
        save(out, loaded.title, [account for account, _ in pairs], beside)


def load_accounts(
    home: Home, run: str | None, prometheus: str | None, config: Path | None = None, *, every: bool = False
) -> Loaded:
    """The books of one run's jobs, or of all."""
    if every and run is not None:
        raise InputError(f"{run} is one run, and --all means all of them. Leave one of the two out.")
    with contextlib.closing(client.open_store(home)) as store:
        settle_orphans(store, home)
        found = client.find_run(store, run)
        jobs = store.jobs(run_id=None if every else found.run_id)
    accounts = client.accounts(
        home, jobs, prometheus_url=client.prometheus_url(prometheus), access=options.access_of(config)
    )
    return Loaded(title="all runs" if every else found.run_id, jobs=jobs, accounts=accounts)


def _kept(loaded: Loaded, conditions: Sequence[Condition]) -> list[tuple[Account, Record]]:
    pairs = [
        (account, record_of(account, date=utc_date(job.submitted_ns)))
        for job, account in zip(loaded.jobs, loaded.accounts, strict=True)
    ]
    return [(account, record) for account, record in pairs if all(one.holds(record) for one in conditions)]


def _sorted(pairs: Sequence[tuple[Account, Record]], keys: Sequence[str]) -> list[tuple[Account, Record]]:
    of = {str(record["job_id"]): account for account, record in pairs}
    return [(of[str(record["job_id"])], record) for record in sort_records([record for _, record in pairs], keys)]


def _listed(
    home: Home, loaded: Loaded, pairs: Sequence[tuple[Account, Record]], by: Sequence[str], *, is_all: bool
) -> tuple[list[Record], Sequence[str]]:
    """The lines of a listing, jobs or sums of them, and the fields they are shown by."""
    if not by:
        return [record for _, record in pairs], DEFAULT_COLUMNS
    known_jobs = {job.job_id for job in loaded.jobs}
    others = nobodys(home, known_jobs) if is_all and set(by) <= set(SLICED) else {}
    lines = [line.as_record() for line in group(pairs, by, others)]
    return lines, tuple(lines[0]) if lines else (*by, "account", "jobs", "energy_kwh")


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _beside(home: Home, loaded: Loaded) -> Sequence[str]:
    """What no job drew, so that the cluster's total is the sum of its parts."""
    others = nobodys(home, {job.job_id for job in loaded.jobs})
    parts_mj = {name: sum(one.energy_mj for one in slices) for name, slices in others.items() if slices}
    if not parts_mj:
        return ()
    booked = [one for account in loaded.accounts for one in account.slices]
    parts_mj = {"jobs": sum(one.energy_mj for one in booked)} | parts_mj
    slices = [*booked, *itertools.chain.from_iterable(others.values())]
    weakest = max((one.method for one in slices), key=lambda method: method.weakness)
    said = f" ({tag_of(weakest)})" if tag_of(weakest) else ""
    told = " + ".join(f"{name} {format_wh(mj_to_kwh(part_mj))}" for name, part_mj in parts_mj.items())
    total = format_wh(mj_to_kwh(sum(parts_mj.values())))
    return [f"{told} = {total}{said}; each node and day: report --all --by node,day"]


def _show_jobs(title: str, accounts: Sequence[Account], beside: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        options.print_json([account.row.as_dict() for account in accounts])
    else:
        print_jobs(f"Jobs of {title}", accounts, beside)


def _show_details(title: str, accounts: Sequence[Account], *, as_json: bool) -> None:
    if as_json:
        options.print_json({account.row.job_id: account.details.as_dict() for account in accounts})
    else:
        print_details(f"Details of {title}", accounts)


def _show_why(title: str, accounts: Sequence[Account], *, as_json: bool) -> None:
    if as_json:
        options.print_json({account.row.job_id: dict(account.row.reasons) for account in accounts})
        return
    counts: dict[tuple[str, str], int] = {}
    for account in accounts:
        for field, reason in account.row.reasons.items():
            counts[field, reason] = counts.get((field, reason), 0) + 1
    columns = [
        Column(heading="field"),
        Column(heading="jobs", numeric=True),
        Column(heading="why it is unknown", folds=True),
    ]
    rows = [[field, str(count), reason] for (field, reason), count in sorted(counts.items())]
    notes = dict.fromkeys(f"note: {note}" for account in accounts for note in account.notes)
    print_table(f"Unknown figures of {title}", columns, rows, list(notes))
