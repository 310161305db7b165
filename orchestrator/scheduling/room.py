"""What a job needs, what a node still has, and whether the one fits in the other. Exact: quantities are integers."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from orchestrator.scheduling.snapshot import NodeView
from orchestrator.turn import UNITS, Needs, needs_of

__all__ = ["UNITS", "Needs", "Room", "free_room", "needs_of", "whole_room"]


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
