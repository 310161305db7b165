"""``wattledger run``: submit a manifest and see it through."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.interrupts import sigterm_as_interrupt
from orchestrator.cli.results import print_comparison, print_jobs, save
from orchestrator.cli.terminal import RunDisplay


def run(
    manifest: options.ManifestArgument,
    address: options.AddressOption = None,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    prometheus: options.PrometheusOption = None,
    prometheus_config: options.PrometheusConfigOption = None,
    agent_listen: options.AgentListenOption = client.LOOPBACK,
    agent_access: options.AgentAccessOption = None,
    out: options.OutOption = None,
    submission_id: Annotated[
        str | None, typer.Option(help="The same manifest and id give the same job ids.", show_default="a new one")
    ] = None,
    home: options.HomeOption = None,
) -> None:
    """Submit a manifest, follow it, and report what each job cost.

    Exit codes: 0 done, 1 a job failed, 2 bad input, 3 no cluster, 130 cancelled.
    """
    ledger = options.home_of(home)
    with sigterm_as_interrupt(), RunDisplay() as display:
        result = client.run(
            manifest,
            options.target_of(
                address=address,
                local=local,
                simulate=simulate,
                prometheus=prometheus,
                prometheus_config=prometheus_config,
                agent_listen=agent_listen,
                agent_access=agent_access,
            ),
            home=ledger,
            observer=display,
            submission_id=submission_id,
        )
    print_jobs(f"Jobs of {result.run_id}", result.accounts)
    print_comparison("Comparison", result.accounts)
    save(out or ledger.root / "reports" / result.run_id, result.run_id, result.accounts)
    raise typer.Exit(result.exit_code)
