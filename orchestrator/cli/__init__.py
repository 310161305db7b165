"""One module per verb; ``main`` is the ``wattledger`` command, also ``python -m orchestrator``."""

from __future__ import annotations

import io
import sys

import typer

from orchestrator.cli.budget import budget
from orchestrator.cli.cancel import cancel
from orchestrator.cli.compact import compact
from orchestrator.cli.compare import compare
from orchestrator.cli.doctor import doctor
from orchestrator.cli.down import down
from orchestrator.cli.explain import explain
from orchestrator.cli.logs import logs
from orchestrator.cli.plan import plan
from orchestrator.cli.quota import quota
from orchestrator.cli.report import report
from orchestrator.cli.rollup import rollup
from orchestrator.cli.run import run
from orchestrator.cli.schema import schema
from orchestrator.cli.sql import sql
from orchestrator.cli.states import states
from orchestrator.cli.status import status
from orchestrator.cli.submit import submit
from orchestrator.cli.targets import targets
from orchestrator.cli.up import up
from workers.errors import WattledgerError

app = typer.Typer(
    help="Run fine-tune and eval jobs on mixed GPUs, and keep the ledger of what each cost: kWh, CO2e, CEGI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    plan,
    run,
    submit,
    cancel,
    up,
    down,
    status,
    explain,
    logs,
    report,
    compare,
    rollup,
    sql,
    compact,
    targets,
    doctor,
    schema,
    states,
):
    app.command()(verb)
app.add_typer(budget, name="budget")
app.add_typer(quota, name="quota")


def main() -> None:
    """Run the command line; an error of ours is one message and its exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a sign still gets the figures around it
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="wattledger")
    except WattledgerError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
