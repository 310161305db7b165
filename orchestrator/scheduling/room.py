"""What a job needs, what a node still has, and whether the one fits in the other. Exact: quantities are integers."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.scheduling.snapshot import NodeView
from workers.contract import JobSpec

UNITS = 10_000
"""Parts of a CPU core or a GB, Ray's own resolution: in floats, three times 0.1 would not fit in 0.3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What an attempt of a job holds while it runs.

    Attributes:
        accelerators: types in order of preference; empty means any will do.
        gpus: whole GPUs, all on one node.
        cpus: CPU cores, in ``UNITS`` parts.
        memory: host memory in GB, in ``UNITS`` parts; ``None`` when none is reserved.
    """

    accelerators: tuple[str, ...]
    gpus: int
    cpus: int
    memory: int | None


@dataclass(kw_only=True, slots=True)
class Room:
    """What is left on a node while decisions are made; ``memory`` is ``None`` where the node does not tell."""

    node: NodeView
    gpus: int
    cpus: int
    memory: int | None

    def fits(self, needs: Needs) -> bool:
        """Whether there is room for one more such job; memory counts only where both sides say how much."""
        memory_fits = needs.memory is None or self.memory is None or needs.memory <= self.memory
        return needs.gpus <= self.gpus and needs.cpus <= self.cpus and memory_fits

    def take(self, needs: Needs) -> None:
        """Give the job its part; it must fit."""
        self.gpus -= needs.gpus
        self.cpus -= needs.cpus
        if self.memory is not None and needs.memory is not None:
            self.memory -= needs.memory


def needs_of(spec: JobSpec) -> Needs:
    """What the job needs. ``each``, which only a manifest can expand, is any type here."""
    resources = spec.resources
    return Needs(
        accelerators=() if resources.accelerators == "each" else resources.accelerators,
        gpus=resources.gpus,
        cpus=max(1, round(resources.cpus * UNITS)),
        memory=_parts(resources.memory_gb),
    )


def free_room(node: NodeView) -> Room:
    """What the node has free now."""
    return Room(node=node, gpus=node.gpus_free, cpus=round(node.cpus_free * UNITS), memory=_parts(node.memory_free_gb))


def whole_room(node: NodeView) -> Room:
    """What the node has when nothing runs on it."""
    return Room(
        node=node, gpus=node.gpus_total, cpus=round(node.cpus_total * UNITS), memory=_parts(node.memory_total_gb)
    )


def _parts(amount: float | None) -> int | None:
    return None if amount is None else round(amount * UNITS)
