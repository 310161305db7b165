"""Ray as the cluster. With ``actors`` and ``agents`` the only import of ``ray``."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import RayActorError, RayError, RayTaskError

from orchestrator.accounting.clocks import ClockReading
from orchestrator.cluster.actors import IN_ORDER, AttemptActor
from orchestrator.cluster.agents import LOOPBACK, NAMESPACE, NODE_ID_LABEL, Agents, first_line, node_name
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


@dataclass(frozen=True, kw_only=True)
class _Running:
    spec: JobSpec
    attempt: int
    node_id: str
    actor: Any


class RayCluster:
    """A running Ray cluster, with an agent on every node that has GPUs. Behaves as ``Cluster`` says.

    Args:
        address: ``host:port`` of the head, or ``auto``.
        home: the ledger; the same path on every node.
        agent_listen: address on which the agents it starts serve their metrics; one that runs already keeps its own.
        agent_access: who may read those, and whether they are encrypted.

    Raises:
        UnreachableError: no cluster there, or an agent does not start.
    """

    def __init__(
        self, address: str, *, home: Home, agent_listen: str = LOOPBACK, agent_access: AgentAccess = UNPROTECTED
    ) -> None:
        self._home = home
        connect(address)
        self._running: dict[Any, _Running] = {}
        self._seen: dict[str, NodeView] = {}
        self._agents = Agents(home, listen=agent_listen, access=agent_access)
        self._agents.start()

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
        return ClusterView(nodes=tuple(self._seen.values()))

    def _node_view(self, node: dict[str, Any], free: dict[str, float]) -> NodeView:
        node_id, total = node["NodeID"], node["Resources"]
        held_gpus, held_cpus, held_gb = self._held(node_id)
        agent = self._agents.known.get(node_id)
        return NodeView(
            node_id=node_id,
            name=node_name(node),
            accelerator=agent.accelerator if agent else None,
            simulated=agent is not None and agent.simulated,
            gpus_total=int(total.get("GPU", 0)),
            gpus_free=int(min(free.get("GPU", 0), total.get("GPU", 0) - held_gpus)),
            cpus_total=float(total.get("CPU", 0)),
            cpus_free=float(min(free.get("CPU", 0), total.get("CPU", 0) - held_cpus)),
            memory_free_gb=min(free.get("memory", 0) / 1e9, total.get("memory", 0) / 1e9 - held_gb),
            memory_total_gb=total.get("memory", 0) / 1e9,
            is_head="node:__internal_head__" in total,
        )

    def _held(self, node_id: str) -> tuple[int, float, float]:
        """GPUs, CPUs and GB that attempts launched here hold on a node: Ray's own books are a moment behind."""
        here = [run.spec.resources for run in self._running.values() if run.node_id == node_id]
        return (
            sum(wanted.gpus for wanted in here),
            sum(wanted.cpus for wanted in here),
            sum(wanted.memory_gb or 0.0 for wanted in here),
        )

    def agents(self) -> tuple[AgentInfo, ...]:
        """One per node with GPUs: of nodes that joined once it is ready, of nodes that left no longer.

        Each is asked anew, and one that died is started again. May be called from any thread.

        Raises:
            UnreachableError: Ray does not answer, or this cluster is closed.
        """
        return self._agents.ask()

    def launch(self, spec: JobSpec, *, attempt: int, node_id: str) -> None:
        """An actor on that node runs the attempt; the labels say which node, and which accelerator it must have."""
        agent = self._agents.known[node_id]
        memory_gb = spec.resources.memory_gb
        actor = AttemptActor.options(
            num_gpus=spec.resources.gpus,
            num_cpus=spec.resources.cpus,
            memory=None if memory_gb is None else int(memory_gb * 1e9),
            label_selector={NODE_ID_LABEL: node_id},
            runtime_env=IN_ORDER,
        ).remote()
        done = actor.run.remote(
            spec.to_json(), spec.job_id, attempt, str(self._home.root), agent.socket, agent.simulated
        )
        self._running[done] = _Running(spec=spec, attempt=attempt, node_id=node_id, actor=actor)

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        """Waits on Ray's own notice. With nothing of ours running it is others' work that is waited for."""
        if not self._running:
            time.sleep(timeout_s)
            return ()
        ready, running = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready and running:
            ready += ray.wait(running, num_returns=len(running), timeout=0)[0]
        return tuple(self._outcome(done, self._running.pop(done)) for done in ready)

    def _outcome(self, done: Any, running: _Running) -> Ended:  # noqa: ANN401 - Ray's reference
        try:
            exit_code, reason = ray.get(done)
        except RayActorError as error:
            exit_code, reason = None, f"its Ray worker or node was lost: {first_line(error)}"
        except RayTaskError as error:
            exit_code, reason = None, f"it could not be started: {first_line(error.cause)}"
        except RayError as error:
            exit_code, reason = None, f"Ray lost it: {first_line(error)}"
        ray.kill(running.actor)
        return Ended(job_id=running.spec.job_id, attempt=running.attempt, exit_code=exit_code, reason=reason)

    def cancel(self, job_id: str) -> None:
        """Kill the actor; its attempt sees that and leaves in order."""
        for done, running in list(self._running.items()):
            if running.spec.job_id == job_id:
                del self._running[done]
                ray.kill(running.actor)

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
