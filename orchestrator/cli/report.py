"""``wattledger report``: what each job of a run cost."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.accounting.rows import Account
from orchestrator.cli import options
from orchestrator.cli.results import print_jobs, save
from orchestrator.cli.terminal import Column, print_table
from orchestrator.custody import settle_orphans
from workers.home import Home


def report(
    run: options.RunArgument = None,
    as_json: options.JsonOption = False,
    why: Annotated[bool, typer.Option("--why", help="Show why each unknown figure is unknown.")] = False,
    out: options.OutOption = None,
    prometheus: options.PrometheusOption = None,
    home: options.HomeOption = None,
) -> None:
    """Show what each job of a run cost and gained; --json prints one report row per job."""
    run_id, accounts = load_accounts(options.home_of(home), run, prometheus)
    if why:
        _show_why(run_id, accounts, as_json=as_json)
    elif as_json:
        options.print_json([account.row.as_dict() for account in accounts])
    else:
        print_jobs(f"Jobs of {run_id}", accounts)
    if out is not None:
        save(out, run_id, accounts)


def load_accounts(home: Home, run: str | None, prometheus: str | None) -> tuple[str, tuple[Account, ...]]:
    """A run's id and the books of its jobs."""
    with contextlib.closing(client.open_store(home)) as store:
        settle_orphans(store, home)
        found = client.find_run(store, run)
        jobs = store.jobs(run_id=found.run_id)
    return found.run_id, client.accounts(home, jobs, prometheus_url=client.prometheus_url(prometheus))


def _show_why(run_id: str, accounts: Sequence[Account], *, as_json: bool) -> None:
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
    print_table(f"Unknown figures of {run_id}", columns, rows)
