"""``wattledger doctor``: what works here, and how to get the rest."""

from __future__ import annotations

from dataclasses import asdict

import typer

from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.doctor import Finding, examine, is_usable


def doctor(as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """Say what can be run and measured on this machine, how, and the command that gets what is missing."""
    findings = examine(options.home_of(home))
    if as_json:
        options.print_json([asdict(finding) for finding in findings])
    else:
        columns = [Column(heading="what"), Column(heading=""), Column(heading="found  → what mends it", folds=True)]
        print_table("What works here", columns, [[each.what, each.level, _told(each)] for each in findings])
    raise typer.Exit(0 if is_usable(findings) else 1)


def _told(finding: Finding) -> str:
    """What was found, and below it the remedy, where there is one: most rows have none, so it gets no column."""
    return finding.found if finding.remedy is None else f"{finding.found}\n→ {finding.remedy}"
