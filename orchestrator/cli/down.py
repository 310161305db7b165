"""``wattledger down``: nothing of a ledger is left on its Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import print_text


def down(
    address: options.AddressOption = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel jobs that run first; else they are refused.")
    ] = False,
    home: options.HomeOption = None,
) -> None:
    """End the ledger's controller and agents; jobs that wait stay in the ledger for the next up. Twice does no harm.

    Exit codes: 0 nothing is left, 2 jobs run, 3 the cluster does not answer.
    """
    ledger = options.home_of(home)
    was_there = client.down(ledger, address=address, cancel=cancel, observer=options.Notes())
    print_text(
        f"the controller and agents of {ledger.root} have ended"
        if was_there
        else f"no controller of {ledger.root} was there to end"
    )
