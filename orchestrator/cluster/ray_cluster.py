"""Ray as the cluster. With ``actors``, ``agents`` and ``attempts`` the only import of ``ray``."""

from __future__ import annotations

import contextlib
import logging
import socket
from dataclasses import replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from orchestrator.accounting.clocks import ClockReading
from orchestrator.cluster.agents import LOOPBACK, NAMESPACE, Agents, first_line, node_name
from orchestrator.cluster.attempts import Attempts
from orchestrator.cluster.gpus import free_gpus
from orchestrator.cluster.port import AgentInfo, Ended
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec
from workers.errors import UnreachableError
from workers.home import Home
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

REMEDY = (
    "Start one with `ray start --head`, name it with --address or RAY_ADDRESS, "
    "or add --local to run on a cluster of this machine's own."
)


class RayCluster:
    """A running Ray cluster, with an agent on every node that has GPUs. Behaves as ``Cluster`` says.

    Args:
        address: ``host:port`` of the head, or ``auto``.
        home: the ledger; the same path on every node.
        agent_listen: address on which the agents it starts serve their metrics; one that runs already keeps its own.
        agent_access: who may read those, and whether they are encrypted.
        program: the module that an attempt's processes run.

    Raises:
        UnreachableError: no cluster there, or an agent does not start.
    """

    def __init__(
        self,
        address: str,
        *,
        home: Home,
        agent_listen: str = LOOPBACK,
        agent_access: AgentAccess = UNPROTECTED,
        program: str = "workers.attempt",
    ) -> None:
        connect(address)
        self._seen: dict[str, NodeView] = {}
        self._agents = Agents(home, listen=agent_listen, access=agent_access)
        with contextlib.ExitStack() as failing:
            failing.callback(self.close)
            self._agents.start()
            failing.pop_all()
        self._attempts = Attempts(home, program=program, agents=self._agents)

    def view(self) -> ClusterView:
        """The nodes by Ray's books. One that was lost is shown as it was last, one that joined when it is metered."""
        free, nodes = available_resources_per_node(), ray.nodes()
        self._agents.follow(nodes)
        alive = {node["NodeID"]: node for node in nodes if node["Alive"]}
        for node_id, node in alive.items():
            if node_id in self._agents.known or not node["Resources"].get("GPU"):
                self._seen[node_id] = self._node_view(node, free.get(node_id, {}))
        for lost in self._seen.keys() - alive.keys():
            self._seen[lost] = replace(self._seen[lost], alive=False)
        self._attempts.lose_beyond(alive.keys())
        return ClusterView(nodes=tuple(self._seen.values()))

    def _node_view(self, node: dict[str, Any], free: dict[str, float]) -> NodeView:
        node_id, total = node["NodeID"], node["Resources"]
        held_gpus, held_cpus, held_gb = self._attempts.held(node_id)
        gpus_total = int(total.get("GPU", 0))
        gpus_free, shares_free = free_gpus(gpus_total, held_gpus, free=free.get("GPU", 0))
        agent = self._agents.known.get(node_id)
        return NodeView(
            node_id=node_id,
            name=node_name(node),
            accelerator=agent.accelerator if agent else None,
            simulated=agent is not None and agent.simulated,
            gpus_total=gpus_total,
            gpus_free=gpus_free,
            cpus_total=float(total.get("CPU", 0)),
            # Ray's own books are a moment behind what was launched here.
            cpus_free=float(min(free.get("CPU", 0), total.get("CPU", 0) - held_cpus)),
            memory_free_gb=min(free.get("memory", 0) / 1e9, total.get("memory", 0) / 1e9 - held_gb),
            memory_total_gb=total.get("memory", 0) / 1e9,
            is_head="node:__internal_head__" in total,
            labels=dict(node["Labels"]),
            shares_free=shares_free,
        )

    def agents(self) -> tuple[AgentInfo, ...]:
        """One per node with GPUs: of nodes that joined once it is ready, of nodes that left no longer.

        Each is asked anew, and one that died is started again. May be called from any thread.

        Raises:
            UnreachableError: Ray does not answer, or this cluster is closed.
        """
        return self._agents.ask()

    def launch(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """A detached actor on each node; several nodes are reserved together."""
        self._attempts.launch(spec, attempt=attempt, nodes=nodes)

    def adopt(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Find its actors, else what it wrote when it ended; without either it is lost."""
        self._attempts.adopt(spec, attempt=attempt, nodes=nodes)

    def stop(self, job_id: str, *, checkpoint: bool) -> None:
        """Its actors see to it, also when this process ends meanwhile."""
        self._attempts.stop(job_id, checkpoint=checkpoint)

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        """Waits on Ray's own notice. With nothing of ours running it is others' work that is waited for."""
        return self._attempts.ended(timeout_s=timeout_s)

    def flush(self) -> None:
        """Ask every agent, all at once."""
        self._agents.flush()

    def clocks(self) -> tuple[ClockReading, ...]:
        """Ask every agent's node, one after the other."""
        return self._agents.clocks()

    def stop_agents(self) -> None:
        """End the agents of this ledger in order: leases closed, limits restored, logs written."""
        self._agents.stop()

    def close(self) -> None:
        """Disconnect."""
        self._agents.let_go()
        ray.shutdown()


def connect(address: str) -> None:
    """Join the cluster as a driver.

    Raises:
        UnreachableError: nothing answers there. A port is tried first, since Ray itself would wait for a minute.
    """
    host, _, port = address.rpartition(":")
    remedy = REMEDY
    if "://" in address:
        raise UnreachableError(
            f"{address} is a URL, and a driver joins by host:port. Use `ray job submit --address {address} -- …`."
        )
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
        except OSError as error:
            raise UnreachableError(f"no Ray cluster answers at {address}: {error}. {REMEDY}") from error
        remedy = f"Something answers there: if it wants a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH. {REMEDY}"
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UnreachableError(f"no Ray cluster at {address}: {first_line(error)} {remedy}") from error
