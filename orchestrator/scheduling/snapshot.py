"""What the cluster has at one instant, as values: what decisions are made from.

``cluster`` makes these from Ray, tests make them by hand; nothing here asks anyone anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from orchestrator.manifest.model import ACCELERATOR_TYPES

__all__ = ["ACCELERATOR_TYPES", "ClusterView", "NodeView"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """One node. ``*_free`` is what no attempt holds now; ``*_total`` is what an empty node offers.

    Attributes:
        node_id: the cluster's key; ``name``: what people call it.
        accelerator: type of its GPUs, as manifests spell it; ``None`` when it has none or they are of no known type.
        simulated: whether its accelerators are simulated; so is then every figure of a job that runs there.
        gpus_total: whole GPUs.
        cpus_total: CPU cores.
        memory_free_gb: host memory in GB; ``None`` when the node does not tell, and then no job is held to it.
        memory_total_gb: as above, empty.
        alive: whether it answers; a node that does not is never given a job.
        is_head: whether the control plane runs there; used last among equals.
        labels: Ray's labels of the node.
        shares_free: of each GPU that jobs hold only in part, the part that is free, above 0 and below 1;
            ``gpus_free`` counts whole free ones.
    """

    node_id: str
    name: str
    accelerator: str | None
    simulated: bool
    gpus_total: int
    gpus_free: int
    cpus_total: float
    cpus_free: float
    memory_free_gb: float | None
    memory_total_gb: float | None = None
    alive: bool = True
    is_head: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    shares_free: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterView:
    """All nodes, alive or not, in no order that means anything."""

    nodes: tuple[NodeView, ...]

    @property
    def alive(self) -> tuple[NodeView, ...]:
        """The nodes that answer, by name."""
        return self._by_name(alive=True)

    @property
    def absent(self) -> tuple[NodeView, ...]:
        """The nodes that do not answer, by name."""
        return self._by_name(alive=False)

    @property
    def accelerator_types(self) -> tuple[str, ...]:
        """The types a job can be given now, by name: what ``resources.accelerators: each`` stands for."""
        return tuple(sorted({node.accelerator for node in self.alive if node.accelerator and node.gpus_total > 0}))

    @property
    def gpus_by_type(self) -> Mapping[str | None, int]:
        """Accelerator type to whole GPUs of the nodes that answer; ``None`` is GPUs of no known type."""
        counts: Counter[str | None] = Counter()
        for node in self.alive:
            if node.gpus_total > 0:
                counts[node.accelerator] += node.gpus_total
        return counts

    def to_json(self) -> str:
        """One line of JSON; ``from_json`` reads it back equal."""
        return json.dumps({"nodes": [asdict(node) for node in self.nodes]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ClusterView:
        """Read a view back that ``to_json`` wrote."""
        nodes = json.loads(text)["nodes"]
        return cls(nodes=tuple(NodeView(**{**node, "shares_free": tuple(node["shares_free"])}) for node in nodes))

    def _by_name(self, *, alive: bool) -> tuple[NodeView, ...]:
        chosen = [node for node in self.nodes if node.alive == alive]
        return tuple(sorted(chosen, key=lambda node: (node.name, node.node_id)))
