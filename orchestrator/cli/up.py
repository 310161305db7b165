"""``wattledger up``: a controller and agents on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import print_text
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import ControllerRecord
from workers.home import Home


def up(
    address: options.AddressOption = None,
    agent_listen: options.AgentListenOption = client.LOOPBACK,
    agent_access: options.AgentAccessOption = None,
    targets_listen: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address on which Prometheus (http_sd_configs) is told the agents."),
    ] = client.LOOPBACK,
    targets_port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Its port; 0 takes any.")] = 0,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Start the ledger's controller on a Ray cluster, and an agent on every node with GPUs; twice does no harm.

    Nodes that join later get an agent too. Exit codes: 0 it runs, 2 bad input, 3 no cluster.
    """
    ledger = options.home_of(home)
    started = client.ControllerOptions(
        agent_listen=agent_listen,
        agent_access=options.agent_access_of(agent_access),
        targets_listen=targets_listen,
        targets_port=targets_port,
    )
    record = client.up(ledger, address=address, options=started, observer=options.Notes())
    if as_json:
        options.print_json(_as_dict(record, ledger))
    else:
        _show(record, ledger)


def _show(record: ControllerRecord, ledger: Home) -> None:
    view = ClusterView.from_json(record.cluster)
    gpus = [f"{count} {name or 'of no known type'}" for name, count in view.gpus_by_type.items()]
    simulated = " (simulated)" if any(node.simulated for node in view.alive) else ""
    print_text(
        f"controller  runs on {record.host}, process {record.pid}, on the Ray cluster at {record.address}\n"
        f"nodes       {len(view.alive)}, GPUs: {', '.join(gpus) or 'none'}{simulated}\n"
        f"ledger      {ledger.root}\n"
        f"targets     {record.targets_url} (http_sd_configs of Prometheus)\n"
        "next        wattledger submit MANIFEST, wattledger status; wattledger down ends it"
    )


def _as_dict(record: ControllerRecord, ledger: Home) -> dict[str, object]:
    view = ClusterView.from_json(record.cluster)
    return {
        "host": record.host,
        "pid": record.pid,
        "address": record.address,
        "targets_url": record.targets_url,
        "ledger": str(ledger.root),
        "nodes": len(view.alive),
        "gpus": {name or "unknown": count for name, count in view.gpus_by_type.items()},
        "simulated": any(node.simulated for node in view.alive),
    }
