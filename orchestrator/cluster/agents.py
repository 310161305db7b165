"""One agent on every node with GPUs, started, asked and ended through Ray, and followed as nodes come and go."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.accounting.clocks import ClockReading, measure
from orchestrator.cluster.actors import IN_ORDER, AgentActor
from orchestrator.cluster.port import AgentInfo
from workers.agent import DEFAULT_SIMULATED
from workers.contract import Method
from workers.errors import UnreachableError
from workers.home import Home
from workers.telemetry.agent_access import AgentAccess

NAMESPACE = "wattledger"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
METER_LABEL = "wattledger.io/meter"
NODE_ID_LABEL = "ray.io/node-id"
_RAY_NAMES = {"A100-80G": "A100-80GB", "A100-40G": "A100-40GB", "A100": "A100-40GB"}
"""Ray's spelling of accelerator types, where it is not ours."""
AGENT_START_S = 60.0
AGENT_ANSWER_S = 1.0
"""An agent that runs says who it is within milliseconds; one that is only starting is asked again later."""
CLOCK_ANSWER_S = 2.0
"""An exchange that takes longer tells nothing of a clock."""
RETRY_S = 30.0
"""Between two tries to start an agent that does not: each costs its node a second of a core."""
LOOPBACK = "127.0.0.1"


class Agents:
    """The agents of one ledger. May be used from several threads at once.

    Args:
        home: the ledger; the same path on every node.
        listen: address on which agents that are started serve their metrics; one that runs already keeps its own.
        access: who may read those, and whether they are encrypted; one that runs already keeps that too.
    """

    def __init__(self, home: Home, *, listen: str, access: AgentAccess) -> None:
        self._home, self._listen, self._access = home, listen, access
        # Whoever writes holds the lock; others may read meanwhile, so what they read is replaced and never changed.
        self._lock, self._is_over = threading.Lock(), False
        self._known: Mapping[str, AgentInfo] = {}
        self._present: frozenset[str] = frozenset()
        self._asked: dict[str, tuple[dict[str, Any], Any]] = {}
        self._refused: dict[str, tuple[str, float]] = {}

    @property
    def known(self) -> Mapping[str, AgentInfo]:
        """Node id to its agent, of nodes that left as well."""
        return self._known

    def start(self) -> None:
        """Start an agent where none is yet, all at once, and wait for them.

        One that does not start costs its node and no other: it is logged, and tried again later.

        Raises:
            UnreachableError: there are nodes with devices, and no agent of theirs starts.
        """
        with self._lock:
            problems = self._follow(ray.nodes(), wait_s=AGENT_START_S)
        if problems and not self._present:
            raise UnreachableError(problems[0])

    def follow(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Take in which nodes there are, by Ray's own list; an agent that is new is known some calls later."""
        with self._lock:
            self._follow(nodes, wait_s=0)

    def ask(self) -> tuple[AgentInfo, ...]:
        """Those that are there now, each asked anew; one that died is started again.

        Raises:
            UnreachableError: Ray does not answer, or the agents were let go.
        """
        with self._lock:
            if self._is_over:
                raise UnreachableError("this cluster was let go. Join it again.")
            try:
                self._follow(ray.nodes(), wait_s=AGENT_ANSWER_S, anew=True)
            except RayError as error:
                raise UnreachableError(f"Ray does not answer: {first_line(error)} Look into its head's log.") from error
            return tuple(info for node_id, info in self._known.items() if node_id in self._present)

    def flush(self) -> None:
        """Have every agent write what it booked, all at once; one that is lost is passed over."""
        pending: list[Any] = []
        for node_id in self._known:
            with contextlib.suppress(ValueError):
                pending.append(self._find(node_id).flush.remote())
        for flushed in pending:
            with contextlib.suppress(RayError):
                ray.get(flushed, timeout=10)

    def clocks(self) -> tuple[ClockReading, ...]:
        """How far each node's clock is from this one; a node that is lost, or does not answer at once, is passed over.

        An agent stamps what it writes with its node's clock, which is the clock its actor reads too.
        """
        found = []
        for node_id, info in self._known.items():
            with contextlib.suppress(ValueError, RayError):
                actor = self._find(node_id)
                ask = functools.partial(_ask_clock, actor)
                found.append(measure(info.node, ask, time.time_ns))
        return tuple(found)

    def let_go(self) -> None:
        """Follow no more. Whoever asks Ray anything after the driver left makes it start a cluster of its own."""
        with self._lock:
            self._is_over = True

    def stop(self) -> None:
        """Follow no more, and end the agents in order: leases closed, limits restored, logs written."""
        self.let_go()
        for node_id in self._known:
            with contextlib.suppress(ValueError, RayError):
                actor = self._find(node_id)
                ray.get(actor.stop.remote(), timeout=10)
                ray.kill(actor)

    def _follow(self, nodes: Sequence[dict[str, Any]], *, wait_s: float, anew: bool = False) -> list[str]:
        """Take in which nodes there are and what their agents say; gives what is wrong with those that do not start.

        Args:
            nodes: Ray's own list.
            wait_s: how long to wait for answers; those that come later are taken in at the next call.
            anew: ask agents that are known as well.
        """
        if self._is_over:
            return []
        metered = {node["NodeID"]: node for node in nodes if node["Alive"] and node["Resources"].get("GPU")}
        for gone in (self._present | self._asked.keys()) - metered.keys():
            self._forget(gone)
        for node_id in metered.keys() - self._asked.keys():
            _, refused_s = self._refused.get(node_id, ("", -RETRY_S))
            if (anew or node_id not in self._known) and time.monotonic() - refused_s >= RETRY_S:
                self._asked[node_id] = metered[node_id], self._actor(metered[node_id]).info.remote()
        waiting = [told for _, told in self._asked.values()]
        ready = ray.wait(waiting, num_returns=len(waiting), timeout=wait_s)[0] if waiting else []
        problems = []
        for node_id, (node, told) in list(self._asked.items()):
            if told in ready or wait_s >= AGENT_START_S:
                del self._asked[node_id]
                problems += self._take_in(node, told)
        return problems

    def _take_in(self, node: dict[str, Any], told: Any) -> list[str]:  # noqa: ANN401 - Ray's reference
        """Note what an agent said of itself; gives why it does not run, which is logged once."""
        node_id = node["NodeID"]
        try:
            said = ray.get(told, timeout=0)
        except RayError as error:
            if node_id in self._known:
                # Its node is about to leave, or Ray is about to start its actor again: the next answer tells.
                return []
            said = {"error": first_line(error)}
        if "error" in said:
            problem = f"the agent of node {node_name(node)} did not start: {said['error']}"
            self._present -= {node_id}
            if self._refused.get(node_id, ("", 0))[0] != problem:
                logging.getLogger(__name__).warning("%s", problem)
            self._refused[node_id] = problem, time.monotonic()
            return [problem]
        self._known = {**self._known, node_id: _agent_info(node, said)}
        self._present |= {node_id}
        return []

    def _forget(self, node_id: str) -> None:
        """A node left: its agent went with it, and Ray must not wait for the node to put the actor back there."""
        self._asked.pop(node_id, None)
        self._present -= {node_id}
        with contextlib.suppress(ValueError, RayError):
            ray.kill(self._find(node_id))

    def _find(self, node_id: str) -> Any:  # noqa: ANN401 - Ray's actor handle
        """Raises ``ValueError`` when Ray knows none."""
        return ray.get_actor(self._name(node_id), namespace=NAMESPACE)

    def _actor(self, node: dict[str, Any]) -> Any:  # noqa: ANN401 - Ray's actor handle
        return AgentActor.options(
            name=self._name(node["NodeID"]),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            runtime_env=IN_ORDER,
            label_selector={NODE_ID_LABEL: node["NodeID"]},
        ).remote(str(self._home.root), node_name(node), _meter_wish(node), self._listen, self._access.flags())

    def _name(self, node_id: str) -> str:
        """One agent per node and ledger."""
        return f"agent-{ledger_name(self._home)}-{node_id}"


def ledger_name(home: Home) -> str:
    """What tells the actors of this ledger from those of others on the same cluster."""
    return hashlib.sha256(str(home.root).encode()).hexdigest()[:8]


def _ask_clock(actor: Any) -> tuple[int, int]:  # noqa: ANN401 - Ray's actor handle
    received_ns, answered_ns = ray.get(actor.clock.remote(), timeout=CLOCK_ANSWER_S)
    return int(received_ns), int(answered_ns)


def _agent_info(node: dict[str, Any], said: dict[str, Any]) -> AgentInfo:
    return AgentInfo(
        node_id=node["NodeID"],
        node=node_name(node),
        socket=said["socket"],
        metrics_url=_by_address(said["metrics_url"], node),
        simulated=any(device["method"] == Method.SIMULATED for device in said["devices"]),
        accelerator=_label(node) or said["devices"][0]["model"],
    )


def _by_address(url: str, node: dict[str, Any]) -> str:
    """A URL with the node's address, which the cluster uses, in place of its name, which others may not know."""
    found = urllib.parse.urlsplit(url)
    if found.hostname != str(node["NodeManagerHostname"]).lower():
        return url
    address = str(node["NodeManagerAddress"])
    return found._replace(netloc=f"[{address}]:{found.port}" if ":" in address else f"{address}:{found.port}").geturl()


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


def node_name(node: dict[str, Any]) -> str:
    """A name people recognise that is unique even when several nodes share a host."""
    return f"{node['NodeManagerHostname']}-{node['NodeID'][:8]}"


def first_line(error: BaseException) -> str:
    """What an error says before its traceback, as a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
