"""``wattledger doctor``: what works here, and how to get the rest."""

from __future__ import annotations

from dataclasses import asdict

import typer

from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.doctor import examine, is_usable
from orchestrator.report.figures import UNKNOWN


def doctor(as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """Say what can be run and measured on this machine, how, and the command that gets what is missing."""
    findings = examine(options.home_of(home))
    if as_json:
        options.print_json([asdict(finding) for finding in findings])
    else:
        columns = [
            Column(heading="what"),
            Column(heading=""),
            Column(heading="found", folds=True),
            Column(heading="remedy", folds=True),
        ]
        rows = [[f.what, f.level, f.found, f.remedy or UNKNOWN] for f in findings]
        print_table("What works here", columns, rows)
    raise typer.Exit(0 if is_usable(findings) else 1)
