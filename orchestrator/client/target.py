"""Where a run goes: to a cluster that runs, or to one of this machine's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.accounting.server_access import OPEN, ServerAccess
from orchestrator.cluster.local import LocalNode
from orchestrator.cluster.options import ControllerOptions
from orchestrator.scheduling.snapshot import ClusterView, NodeView


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run goes.

    Attributes:
        address: ``host:port`` of a Ray head; ``None`` is the one this ledger's controller serves, else the one that
            runs on this machine. Not used with ``local``.
        local: nodes of a local cluster to start for this run; ``None`` joins one that runs.
        prometheus_url: a server that scrapes the agents; with ``local`` a private one is started instead.
        prometheus_access: the secrets and certificates that server wants.
        controller: how a controller is started where none is.
    """

    address: str | None = None
    local: tuple[LocalNode, ...] | None = None
    prometheus_url: str | None = None
    prometheus_access: ServerAccess = OPEN
    controller: ControllerOptions = field(default_factory=ControllerOptions)


def view_of(nodes: Sequence[LocalNode]) -> ClusterView:
    """What a local cluster of ``nodes`` would offer, without starting it."""
    return ClusterView(
        nodes=tuple(
            NodeView(
                node_id=f"local-{number}",
                name=f"local-{number}",
                accelerator=node.accelerator,
                simulated=node.simulated,
                gpus_total=1,
                gpus_free=1,
                cpus_total=1.0,
                cpus_free=1.0,
                memory_free_gb=None,
            )
            for number, node in enumerate(nodes, 1)
        )
    )
