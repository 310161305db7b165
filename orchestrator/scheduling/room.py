"""What a job needs, what a node still has, and whether the one fits in the other. Exact: quantities are integers."""

from __future__ import annotations

import functools
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from orchestrator.scheduling.snapshot import NodeView
from workers.contract import JobSpec

UNITS = 10_000
"""Parts of a GPU, a CPU core or a GB, Ray's own resolution: in floats, three times 0.1 would not fit in 0.3."""


Labels = tuple[tuple[str, str], ...]
Kind = tuple[tuple[str, ...], float, float, float | None, int, Labels]
"""Accelerator types, GPUs, CPU cores, GB of memory, nodes, labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What an attempt of a job holds on each of its nodes while it runs.

    Attributes:
        accelerators: types in order of preference; empty means any will do.
        gpus: whole GPUs.
        cpus: CPU cores, in ``UNITS`` parts.
        memory: host memory in GB, in ``UNITS`` parts; ``None`` when none is reserved.
        share: the part of one GPU that it shares with others, in ``UNITS`` parts; 0 when it needs whole ones or none.
        nodes: how many nodes, of one accelerator type.
        labels: what each node must be labelled with, by key.
    """

    accelerators: tuple[str, ...]
    gpus: int
    cpus: int
    memory: int | None
    share: int = 0
    nodes: int = 1
    labels: Labels = ()

    @property
    def any_gpu(self) -> bool:
        """Whether it needs a GPU or a part of one."""
        return self.gpus > 0 or self.share > 0

    @property
    def gpu_parts(self) -> int:
        """GPUs over all nodes, in ``UNITS`` parts: what quotas and shares count."""
        return (self.gpus * UNITS + self.share) * self.nodes

    def is_within(self, other: Needs) -> bool:
        """Whether this asks for no more than the other on no more nodes: where this has no room, the other has none.

        Of the same accelerator types and labels, or any.
        """
        return (
            self.gpus <= other.gpus
            and self.share <= other.share
            and self.cpus <= other.cpus
            and self.nodes <= other.nodes
            and (self.memory or 0) <= (other.memory or 0)
        )


@dataclass(kw_only=True, slots=True)
class Room:
    """What is left on a node while decisions are made.

    Attributes:
        gpus: GPUs that are wholly free.
        memory: ``None`` where the node does not tell.
        shares: of each GPU in part used, the part that is free, in ``UNITS`` parts, ascending.
    """

    node: NodeView
    gpus: int
    cpus: int
    memory: int | None
    shares: list[int] = field(default_factory=list)

    def fits(self, needs: Needs) -> bool:
        """Whether there is room for one more such job; memory counts only where both sides say how much."""
        if needs.cpus > self.cpus or needs.gpus > self.gpus:
            return False
        if needs.share and not self.gpus and (not self.shares or self.shares[-1] < needs.share):
            return False
        return needs.memory is None or self.memory is None or needs.memory <= self.memory

    def take(self, needs: Needs) -> None:
        """Give the job its part; it must fit. A part of a GPU comes from the fullest GPU that has it."""
        self.gpus -= needs.gpus
        self.cpus -= needs.cpus
        if self.memory is not None and needs.memory is not None:
            self.memory -= needs.memory
        if needs.share:
            at = bisect_left(self.shares, needs.share)
            if at < len(self.shares):
                left = self.shares.pop(at) - needs.share
            else:
                self.gpus -= 1
                left = UNITS - needs.share
            if left:
                insort(self.shares, left)

    def give(self, needs: Needs, *, apart: bool = False) -> None:
        """Take back what a job held, as when it will have ended.

        Which GPU its part was of is not known: that which the part makes fullest is taken for it, a whole one at best;
        with ``apart`` the part is taken for all that is free there, at worst.
        """
        self.gpus += needs.gpus
        self.cpus += needs.cpus
        if self.memory is not None and needs.memory is not None:
            self.memory += needs.memory
        if needs.share:
            at = -1 if apart else bisect_left(self.shares, UNITS - needs.share + 1) - 1
            free = needs.share + (self.shares.pop(at) if at >= 0 else 0)
            if free == UNITS:
                self.gpus += 1
            else:
                insort(self.shares, free)

    def copy(self) -> Room:
        """Another, to play with."""
        return Room(node=self.node, gpus=self.gpus, cpus=self.cpus, memory=self.memory, shares=list(self.shares))


def needs_of(spec: JobSpec) -> Needs:
    """What the job needs. ``each``, which only a manifest can expand, is any type here."""
    return needs_of_kind(kind_of(spec))


def kind_of(spec: JobSpec) -> Kind:
    """What the job asks for of each node, as it is written: jobs of one kind have the same needs."""
    asked = spec.resources
    types = () if asked.accelerators == "each" else asked.accelerators
    labels = tuple(sorted(asked.labels.items())) if asked.labels else ()
    return types, asked.gpus, asked.cpus, asked.memory_gb, asked.nodes, labels


@functools.lru_cache(maxsize=2**16)
def needs_of_kind(kind: Kind) -> Needs:
    """Exact. Kept, since one decision after another asks for the same."""
    accelerators, gpus, cpus, memory_gb, nodes, labels = kind
    return Needs(
        accelerators=accelerators,
        gpus=int(gpus),
        cpus=max(1, round(cpus * UNITS)),
        memory=_parts(memory_gb),
        share=max(1, round(gpus * UNITS)) if 0 < gpus < 1 else 0,
        nodes=nodes,
        labels=labels,
    )


def free_room(node: NodeView) -> Room:
    """What the node has free now."""
    return Room(
        node=node,
        gpus=node.gpus_free,
        cpus=round(node.cpus_free * UNITS),
        memory=_parts(node.memory_free_gb),
        shares=sorted(round(share * UNITS) for share in node.shares_free),
    )


def whole_room(node: NodeView) -> Room:
    """What the node has when nothing runs on it."""
    return Room(
        node=node, gpus=node.gpus_total, cpus=round(node.cpus_total * UNITS), memory=_parts(node.memory_total_gb)
    )


def _parts(amount: float | None) -> int | None:
    return None if amount is None else round(amount * UNITS)
