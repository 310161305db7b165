"""``wattledger targets``: where each node's metrics are, and how Prometheus follows them."""

from __future__ import annotations

import sys
import threading
import urllib.parse
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.interrupts import sigterm_as_interrupt
from orchestrator.cli.terminal import Column, print_table, print_text
from orchestrator.cluster.port import AgentInfo
from orchestrator.monitoring.discovery import target_groups
from workers.telemetry.access import is_loopback


def targets(
    address: options.AddressOption = None,
    serve: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Tell Prometheus the agents at http://ADDRESS:PORT/; 0 takes any port.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="With --serve: address to listen on.")
    ] = client.LOOPBACK,
    agent_listen: options.AgentListenOption = client.LOOPBACK,
    agent_access: options.AgentAccessOption = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """List where each node's agent serves its metrics, and start agents where none is.

    With --serve, tell Prometheus (http_sd_configs) until interrupted: nodes that come and go are followed unedited.
    """
    target = client.Target(
        address=address or "auto",
        agent_listen=agent_listen,
        agent_access=options.agent_access_of(agent_access),
        targets_listen=listen,
        targets_port=serve or 0,
    )
    with sigterm_as_interrupt(), client.open_site(target, home=options.home_of(home), observer=_Notes()) as site:
        if serve is None:
            _show(site.cluster.agents(), as_json=as_json)
            return
        print_text(site.targets_url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


class _Notes(options.Silent):
    """An observer whose notes go to standard error."""

    def say(self, text: str) -> None:
        """One line."""
        sys.stderr.write(f"{text}\n")


def _show(agents: tuple[AgentInfo, ...], *, as_json: bool) -> None:
    if as_json:
        options.print_json(target_groups(agents))
        return
    columns = [
        Column(heading="node"),
        Column(heading="accelerator"),
        Column(heading="metrics"),
        Column(heading="scraped from"),
    ]
    rows = [
        [
            agent.node,
            f"{agent.accelerator}{' (simulated)' if agent.simulated else ''}",
            agent.metrics_url,
            "its own host alone"
            if is_loopback(urllib.parse.urlsplit(agent.metrics_url).hostname or "")
            else "anywhere",
        ]
        for agent in sorted(agents, key=lambda agent: agent.node)
    ]
    print_table("Agents", columns, rows)
