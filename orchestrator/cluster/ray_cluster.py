"""Ray as the cluster. With ``actors`` the only import of ``ray``."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from orchestrator.cluster.actors import AgentActor, AttemptActor
from orchestrator.cluster.port import AgentInfo, Ended
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.agent import DEFAULT_SIMULATED
from workers.contract import JobSpec, Method
from workers.errors import UnreachableError
from workers.home import Home

NAMESPACE = "wattledger"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
METER_LABEL = "wattledger.io/meter"
NODE_ID_LABEL = "ray.io/node-id"
_RAY_NAMES = {"A100-80G": "A100-80GB", "A100-40G": "A100-40GB", "A100": "A100-40GB"}
"""Ray's spelling of accelerator types, where it is not ours."""
AGENT_START_S = 60.0
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

    Raises:
        UnreachableError: no cluster there, or an agent does not start.
    """

    def __init__(self, address: str, *, home: Home) -> None:
        self._home = home
        _connect(address)
        self._running: dict[Any, _Running] = {}
        self._seen: dict[str, NodeView] = {}
        self._agents = {info.node_id: info for info in self._start_agents()}

    def view(self) -> ClusterView:
        """The nodes by Ray's books. One that was lost is shown as it was last, one that joined unmetered is not."""
        free = available_resources_per_node()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for node_id, node in alive.items():
            if node_id in self._agents or not node["Resources"].get("GPU"):
                self._seen[node_id] = self._node_view(node, free.get(node_id, {}))
        for lost in self._seen.keys() - alive.keys():
            self._seen[lost] = replace(self._seen[lost], alive=False)
        return ClusterView(nodes=tuple(self._seen.values()))

    def _node_view(self, node: dict[str, Any], free: dict[str, float]) -> NodeView:
        node_id, total = node["NodeID"], node["Resources"]
        held_gpus, held_cpus, held_gb = self._held(node_id)
        agent = self._agents.get(node_id)
        return NodeView(
            node_id=node_id,
            name=_node_name(node),
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
        """One per node with GPUs."""
        return tuple(self._agents.values())

    def launch(self, spec: JobSpec, *, attempt: int, node_id: str) -> None:
        """An actor on that node runs the attempt; the labels say which node, and which accelerator it must have."""
        agent = self._agents[node_id]
        memory_gb = spec.resources.memory_gb
        actor = AttemptActor.options(
            num_gpus=spec.resources.gpus,
            num_cpus=spec.resources.cpus,
            memory=None if memory_gb is None else int(memory_gb * 1e9),
            label_selector={NODE_ID_LABEL: node_id},
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
            exit_code, reason = None, f"its Ray worker or node was lost: {_first_line(error)}"
        except RayTaskError as error:
            exit_code, reason = None, f"it could not be started: {_first_line(error.cause)}"
        except RayError as error:
            exit_code, reason = None, f"Ray lost it: {_first_line(error)}"
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
        pending: list[Any] = []
        for node_id in self._agents:
            with contextlib.suppress(ValueError):
                pending.append(ray.get_actor(self._agent_name(node_id), namespace=NAMESPACE).flush.remote())
        for flushed in pending:
            with contextlib.suppress(RayError):
                ray.get(flushed, timeout=10)

    def stop_agents(self) -> None:
        """End the agents of this ledger in order: leases closed, limits restored, logs written."""
        for node_id in self._agents:
            with contextlib.suppress(ValueError, RayError):
                actor = ray.get_actor(self._agent_name(node_id), namespace=NAMESPACE)
                ray.get(actor.stop.remote(), timeout=10)
                ray.kill(actor)

    def close(self) -> None:
        """Disconnect."""
        ray.shutdown()

    def _start_agents(self) -> list[AgentInfo]:
        """An agent on each node with GPUs, where none is yet; all started at once."""
        actors = [
            (node, self._agent_actor(node)) for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")
        ]
        return [self._agent_info(node, actor) for node, actor in actors]

    def _agent_actor(self, node: dict[str, Any]) -> Any:  # noqa: ANN401 - Ray's actor handle
        return AgentActor.options(
            name=self._agent_name(node["NodeID"]),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            label_selector={NODE_ID_LABEL: node["NodeID"]},
        ).remote(str(self._home.root), _node_name(node), _meter_wish(node), "127.0.0.1")

    def _agent_info(self, node: dict[str, Any], actor: Any) -> AgentInfo:  # noqa: ANN401 - Ray's actor handle
        name = _node_name(node)
        try:
            info = ray.get(actor.info.remote(), timeout=AGENT_START_S)
        except (GetTimeoutError, RayActorError, RayTaskError) as error:
            raise UnreachableError(f"the agent of node {name} did not start: {_first_line(error)}") from error
        if "error" in info:
            raise UnreachableError(f"the agent of node {name} did not start: {info['error']}")
        return AgentInfo(
            node_id=node["NodeID"],
            node=name,
            socket=info["socket"],
            metrics_url=info["metrics_url"],
            simulated=any(device["method"] == Method.SIMULATED for device in info["devices"]),
            accelerator=_label(node) or info["devices"][0]["model"],
        )

    def _agent_name(self, node_id: str) -> str:
        """One agent per node and ledger."""
        ledger = hashlib.sha256(str(self._home.root).encode()).hexdigest()[:8]
        return f"agent-{ledger}-{node_id}"


def _connect(address: str) -> None:
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
        raise UnreachableError(f"no Ray cluster at {address}: {_first_line(error)} {remedy}") from error


def _meter_wish(node: dict[str, Any]) -> str:
    """How the node's agent meters: as its label says, else what is there; simulated boards take the node's type."""
    wish = node["Labels"].get(METER_LABEL, "auto")
    accelerator = _label(node) or DEFAULT_SIMULATED
    return f"{wish}:{','.join([accelerator] * int(node['Resources']['GPU']))}"


def _label(node: dict[str, Any]) -> str | None:
    """The node's accelerator type: its label, else the resource older Rays announce it by."""
    name = node["Labels"].get(ACCELERATOR_LABEL)
    if name is None:
        announced = [key.partition(":")[2] for key in node["Resources"] if key.startswith("accelerator_type:")]
        name = announced[0] if announced else None
    return None if name is None else _RAY_NAMES.get(name, name)


def _node_name(node: dict[str, Any]) -> str:
    """A name people recognise that is unique even when several nodes share a host."""
    return f"{node['NodeManagerHostname']}-{node['NodeID'][:8]}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."


def default_address() -> str:
    """``RAY_ADDRESS``, as ``ray job submit`` sets it for its entry point, else whatever runs on this machine."""
    return os.environ.get("RAY_ADDRESS", "auto")
