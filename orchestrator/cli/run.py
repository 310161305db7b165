"""``wattledger run``: submit manifests and see them through."""

from __future__ import annotations

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.interrupts import sigterm_as_interrupt
from orchestrator.cli.results import print_comparison, print_jobs, save
from orchestrator.cli.terminal import RunDisplay


def run(
    manifests: options.ManifestsArgument,
    profile: options.ProfileOption = None,
    address: options.AddressOption = None,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    prometheus: options.PrometheusOption = None,
    prometheus_config: options.PrometheusConfigOption = None,
    agent_listen: options.AgentListenOption = client.LOOPBACK,
    agent_access: options.AgentAccessOption = None,
    out: options.OutOption = None,
    submission_id: options.SubmissionOption = None,
    home: options.HomeOption = None,
) -> None:
    """Submit manifests, follow them, and report what each job cost. Starts a controller where none is.

    Exit codes: 0 done, 1 a job failed, 2 bad input, 3 no cluster, 130 cancelled.
    """
    ledger = options.home_of(home)
    with sigterm_as_interrupt(), RunDisplay() as display:
        results = client.run(
            manifests,
            options.target_of(
                address=address,
                local=local,
                simulate=simulate,
                prometheus=prometheus,
                prometheus_config=prometheus_config,
                controller=client.ControllerOptions(
                    agent_listen=agent_listen, agent_access=options.agent_access_of(agent_access)
                ),
            ),
            home=ledger,
            observer=display,
            submission_id=submission_id,
            profile=profile,
        )
    for result in results:
        print_jobs(f"Jobs of {result.run_id}", result.accounts)
        print_comparison("Comparison", result.accounts)
        folder = ledger.root / "reports" / result.run_id
        if out is not None:
            folder = out if len(results) == 1 else out / result.run_id
        save(folder, result.run_id, result.accounts)
    raise typer.Exit(max(result.exit_code for result in results))
