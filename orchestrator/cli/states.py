"""``wattledger states``: how a job moves, from the table that the code obeys."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table, print_text
from orchestrator.queue_view import states as table
from workers.errors import UnknownNameError

FORMATS = ("text", "markdown", "mermaid", "json")


def states(
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "text",
    as_json: options.JsonOption = False,
) -> None:
    """Show the states of a job: what each means, who sets it, and what may follow."""
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    if as_json or form == "json":
        options.print_json(table.as_dicts())
    elif form == "text":
        columns = [
            Column(heading="state"),
            Column(heading="what it means", folds=True),
            Column(heading="set by", spare=1),
            Column(heading="what may follow", folds=True),
        ]
        print_table("How a job moves", columns, table.rows())
    else:
        print_text(table.mermaid() if form == "mermaid" else table.markdown())
