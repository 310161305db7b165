"""``wattledger quota``: what users and projects may hold at once, and what they hold now."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table, print_text
from orchestrator.queue_view import QuotaUse
from orchestrator.quotas import EACH, Quota, QuotaScope
from orchestrator.report.figures import UNKNOWN
from orchestrator.store import Store
from workers.errors import InputError

quota = typer.Typer(
    help="Limit what users and projects may hold at once: GPUs of running jobs, and jobs in the queue.",
    no_args_is_help=True,
)

UserOption = Annotated[
    str | None, typer.Option("--user", help="Of a user, by the account that submits; * is each without one of its own.")
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", help="Or of a project (accounting.project); * is each without its own.")
]


@quota.command("set")
def set_(
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs that running jobs hold together.")] = None,
    queued_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs that wait; more are refused.")] = None,
    user: UserOption = None,
    project: ProjectOption = None,
    home: options.HomeOption = None,
) -> None:
    """Set a quota, in the place of what was set before. Jobs that run stay, also above it."""
    scope, name = _whose(user=user, project=project)
    if gpus is None and queued_jobs is None:
        raise InputError("a quota needs a limit. Give --gpus, --queued-jobs, or both.")
    made = Quota(scope=scope, name=name, gpus=gpus, queued_jobs=queued_jobs)
    # A quota may be there before the first run: the ledger is made if need be.
    with contextlib.closing(Store(options.home_of(home).state_db)) as store:
        store.set_quota(made, now_ns=time.time_ns())
    print_text(f"{_called(made)} may have {_limits(made)}")


@quota.command()
def remove(user: UserOption = None, project: ProjectOption = None, home: options.HomeOption = None) -> None:
    """Take a quota back."""
    scope, name = _whose(user=user, project=project)
    with contextlib.closing(client.open_store(options.home_of(home))) as store:
        store.remove_quota(scope, name)


@quota.command()
def show(as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """Show each quota, and what those under it hold now and may still take."""
    found = client.quotas(options.home_of(home))
    if as_json:
        options.print_json([use.as_dict() for use in found])
        return
    columns = [
        Column(heading="quota of"),
        Column(heading="set for", spare=1),
        *(Column(heading=heading, numeric=True) for heading in ("GPUs\nquota", "\nused", "\nleft")),
        *(Column(heading=heading, numeric=True) for heading in ("queued jobs\nquota", "\nused", "\nleft")),
    ]
    print_table(
        "Quotas", columns, [_line(use) for use in found], [] if found else ["none is set: wattledger quota set --help"]
    )


def _line(use: QuotaUse) -> list[str]:
    figures = (
        use.quota.gpus,
        use.gpus,
        use.gpus_left,
        use.quota.queued_jobs,
        use.queued_jobs,
        use.queued_jobs_left,
    )
    return [f"{use.quota.scope} {use.name}", _called(use.quota), *(_figure(value) for value in figures)]


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _whose(*, user: str | None, project: str | None) -> tuple[QuotaScope, str]:
    if user is not None and project is None:
        return "user", user
    if project is not None and user is None:
        return "project", project
    raise InputError("a quota is of one: give --user or --project.")


def _called(made: Quota) -> str:
    return f"each {made.scope} without its own" if made.name == EACH else f"{made.scope} {made.name}"


def _limits(made: Quota) -> str:
    limits = [(made.gpus, "GPU", " at once"), (made.queued_jobs, "job", " in the queue")]
    return " and ".join(
        f"{limit:g} {noun}{'' if limit == 1 else 's'}{where}" for limit, noun, where in limits if limit is not None
    )
