"""``wattledger plan``: what would run where, and why; nothing is submitted."""

from __future__ import annotations

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.cluster.local import local_nodes
from orchestrator.manifest import load_manifest
from orchestrator.plan import Plan, make_plan
from orchestrator.report.figures import UNKNOWN
from workers.errors import InputError


def plan(
    manifest: options.ManifestArgument,
    address: options.AddressOption = None,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    agent_listen: options.AgentListenOption = client.LOOPBACK,
    agent_access: options.AgentAccessOption = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Show what a manifest would run, where and why, on the cluster at --address or else on --local's nodes.

    At --address it starts the agents that are not there yet, since they know the devices; they stay.
    """
    wanted = load_manifest(manifest)
    where = "the cluster"
    if address and not (local or simulate):
        target = options.target_of(
            address=address, local=False, simulate=None, agent_listen=agent_listen, agent_access=agent_access
        )
        with client.open_site(target, home=options.home_of(home), observer=options.Silent()) as site:
            view = site.cluster.view()
    else:
        where = "a local cluster of this machine (name another with --address)"
        view = client.view_of(local_nodes(tuple(simulate or ())))
    made = make_plan(client.expand_on(wanted, view, submission_id=None), view)
    if as_json:
        options.print_json(made.as_dict())
    else:
        _show(made, f"Plan of {wanted.name} on {where}")
    if made.impossible:
        raise InputError(f"{len(made.impossible)} of {len(made.jobs)} jobs can never run there.")


def _show(made: Plan, title: str) -> None:
    columns = [
        Column(heading="#", numeric=True),
        Column(heading="wave", numeric=True),
        Column(heading="model"),
        Column(heading="adapter", spare=2),
        Column(heading="seed", numeric=True),
        Column(heading="accelerator"),
        Column(heading="node", spare=1),
        Column(heading="why there, or what it waits for", folds=True),
    ]
    rows = [
        [
            str(job.order),
            UNKNOWN if job.wave is None else str(job.wave),
            job.model,
            job.adapter,
            str(job.seed),
            f"{job.accelerator or UNKNOWN}{' (simulated)' if job.simulated else ''}",
            job.node or UNKNOWN,
            job.impossible or job.waits or job.why or UNKNOWN,
        ]
        for job in made.jobs
    ]
    print_table(title, columns, rows, [*made.notes, *dict.fromkeys(j.predicted_energy_reason or "" for j in made.jobs)])
