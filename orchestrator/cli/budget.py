"""``wattledger budget``: what users, teams, projects and jobs may use, and what is left of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Annotated, get_args

import typer

from orchestrator import client
from orchestrator.accounting.budgets import BudgetStatus
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table, print_text
from orchestrator.report.figures import UNKNOWN, format_number
from orchestrator.report.headline import tag_of
from orchestrator.store import BudgetPeriod, BudgetRecord, BudgetScope, Store
from workers.errors import InputError, UnknownNameError

budget = typer.Typer(
    help="Set energy and CO2e budgets, and see what is left. Nothing is stopped or capped for one yet: that comes with "
    "power caps; a job's own budget is in its manifest.",
    no_args_is_help=True,
)

UserOption = Annotated[str | None, typer.Option("--user", help="Whose jobs: of a user, by the account that submitted.")]
TeamOption = Annotated[str | None, typer.Option("--team", help="Or of a team (accounting.team of the manifests).")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Or of a project (accounting.project).")]
JobOption = Annotated[str | None, typer.Option("--job", help="Or one job, by its id.")]
PeriodOption = Annotated[str, typer.Option("--per", help="day, week (from Monday), month, or total; by UTC.")]


@budget.command("set")
def set_(
    energy_kwh: Annotated[float | None, typer.Option(min=0, help="IT energy of all devices, kWh.")] = None,
    co2e_kg: Annotated[float | None, typer.Option(min=0, help="Operational CO2e, PUE included, kg.")] = None,
    user: UserOption = None,
    team: TeamOption = None,
    project: ProjectOption = None,
    job: JobOption = None,
    per: PeriodOption = "total",
    home: options.HomeOption = None,
) -> None:
    """Set a budget, in the place of what was set for the same period before."""
    scope, name = _whose(user=user, team=team, project=project, job=job)
    if energy_kwh is None and co2e_kg is None:
        raise InputError("a budget needs a limit. Give --energy-kwh, --co2e-kg, or both.")
    made = BudgetRecord(
        scope=scope,
        name=name,
        period=_period(per),
        energy_kwh=energy_kwh,
        co2e_kg=co2e_kg,
        set_ns=time.time_ns(),
    )
    # A budget may be there before the first run: the ledger is made if need be.
    with contextlib.closing(Store(options.home_of(home).state_db)) as store:
        store.set_budget(made)
    print_text(
        f"{scope} {name} has {_limits(made)} per {per}" if per != "total" else f"{scope} {name} has {_limits(made)}"
    )


@budget.command()
def remove(
    user: UserOption = None,
    team: TeamOption = None,
    project: ProjectOption = None,
    job: JobOption = None,
    per: PeriodOption = "total",
    home: options.HomeOption = None,
) -> None:
    """Take a budget back."""
    scope, name = _whose(user=user, team=team, project=project, job=job)
    with contextlib.closing(client.open_store(options.home_of(home))) as store:
        store.remove_budget(scope, name, _period(per))


@budget.command()
def show(as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """Show each budget: what was spent in its present period, and what is left."""
    found = client.budgets(options.home_of(home))
    if as_json:
        options.print_json([status.as_dict() for status in found])
    else:
        _show(found)


def _show(found: Sequence[BudgetStatus]) -> None:
    columns = [
        Column(heading="budget of"),
        Column(heading="per"),
        Column(heading="jobs", numeric=True, spare=1),
        Column(heading="kWh\nbudget", numeric=True),
        Column(heading="\nspent", numeric=True),
        Column(heading="\nleft", numeric=True),
        Column(heading="kg CO2e\nbudget", numeric=True),
        Column(heading="\nspent", numeric=True),
        Column(heading="\nleft", numeric=True),
        Column(heading="method"),
    ]
    rows = [
        [
            f"{status.budget.scope} {status.budget.name}",
            status.budget.period,
            str(status.jobs),
            *(
                format_number(value)
                for unit in ("energy_kwh", "co2e_kg")
                for value in (getattr(status.budget, unit), status.spent[unit], status.left.get(unit))
            ),
            status.method or UNKNOWN,
        ]
        for status in found
    ]
    notes = [f"EXCEEDED: {status.budget.scope} {status.budget.name}" for status in found if status.is_exceeded]
    notes += [f"not counted, since not known: {', '.join(status.unknown)}" for status in found if status.unknown]
    notes += ["SIMULATED: some of this is of simulated devices"] if any(tag_of(s.method) for s in found) else []
    print_table("Budgets", columns, rows, notes or ([] if found else ["none is set: wattledger budget set --help"]))


def _whose(**named: str | None) -> tuple[BudgetScope, str]:
    given = {scope: name for scope, name in named.items() if name is not None}
    if len(given) != 1:
        raise InputError("a budget is of one: give one of --user, --team, --project and --job.")
    ((scope, name),) = given.items()
    return _one_of(scope), name


def _one_of(scope: str) -> BudgetScope:
    known: tuple[BudgetScope, ...] = get_args(BudgetScope)
    return next(one for one in known if one == scope)


def _period(name: str) -> BudgetPeriod:
    known: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)
    for one in known:
        if one == name:
            return one
    raise UnknownNameError("period", name, known)


def _limits(made: BudgetRecord) -> str:
    limits = [(made.energy_kwh, "kWh"), (made.co2e_kg, "kg CO2e")]
    return " and ".join(f"{format_number(limit)} {unit}" for limit, unit in limits if limit is not None)
