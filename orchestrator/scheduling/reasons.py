"""Why a job got its place, or none: sentences for the person whose job it is."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.scheduling.inventory import suits
from orchestrator.scheduling.room import UNITS, Needs, Room, whole_room
from orchestrator.scheduling.snapshot import ClusterView, NodeView

_NAMED = 3
"""Nodes named in one sentence; the rest are counted."""


def why_here(needs: Needs, choice: int, node: NodeView) -> str:
    """Why ``node`` was taken; ``choice`` is its type's place in the job's order of preference, from 0."""
    if needs.gpus == 0:
        return f"needs no GPU, and {node.name} has the CPU cores"
    what = node.accelerator or "GPU of no known type"
    has = f"{node.name} has {_free(needs.gpus, what)}"
    if not needs.accelerators:
        return f"any accelerator will do, and {has}"
    if len(needs.accelerators) == 1:
        return has
    if choice == 0:
        return f"first choice of {len(needs.accelerators)}: {has}"
    earlier = " or ".join(needs.accelerators[:choice])
    return f"choice {choice + 1} of {len(needs.accelerators)}: {has}, and no {earlier} has room"


def why_never(needs: Needs, cluster: ClusterView) -> str:
    """Why no node that answers could run the job even if it were empty."""
    absent = [node for node in cluster.absent if suits(needs, node) and whole_room(node).fits(needs)]
    hope = f"; {_names(absent)} could run it but does not answer" if absent else ""
    if not cluster.alive:
        return f"no node of the cluster answers{hope}"
    suitable = [node for node in cluster.alive if suits(needs, node)]
    if not suitable:
        return f"no node has {_wanted(needs)}; this cluster has: {_inventory(cluster)}{hope}"
    sizes = _listing([f"{room.node.name} has {_amount(room, needs)}" for room in map(whole_room, suitable)])
    return f"no node is large enough: the job needs {_needed(needs)}, and {sizes}{hope}"


def why_later(needs: Needs, capable: Sequence[Room]) -> str:
    """What the job waits for; ``capable`` is what is left on the nodes that could run it if they were empty."""
    gpus = sum(room.node.gpus_total for room in capable)
    if needs.gpus == 1 and all(room.gpus == 0 for room in capable):
        busy = "the only one is busy" if gpus == 1 else f"all {gpus} are busy"
        return f"waits for {_wanted(needs)}: {busy}"
    left = _listing([f"{room.node.name} has {_amount(room, needs)} free" for room in capable])
    return f"waits for {_needed(needs)} on one node: {left}"


def _wanted(needs: Needs) -> str:
    return " or ".join(_with_article(name) for name in needs.accelerators) or "an accelerator"


def _with_article(name: str) -> str:
    """As said aloud: an A100, an H100, an L4, an RTX-3090, a T4."""
    return f"{'an' if name[:1] in 'AEFHILMNORSX' else 'a'} {name}"


def _inventory(cluster: ClusterView) -> str:
    kinds = sorted((name or "GPU of no known type", count) for name, count in cluster.gpus_by_type.items())
    return ", ".join(f"{name} x{count}" for name, count in kinds) or "no accelerator"


def _free(gpus: int, what: str) -> str:
    return f"a free {what}" if gpus == 1 else f"{gpus} free {what}"


def _needed(needs: Needs) -> str:
    return _quantities(needs.gpus, needs.cpus, needs.memory, needs)


def _amount(room: Room, needs: Needs) -> str:
    return _quantities(room.gpus, room.cpus, room.memory, needs)


def _quantities(gpus: int, cpus: int, memory: int | None, needs: Needs) -> str:
    """The quantities a job asks for at all; memory only where it is known."""
    parts = [f"{gpus} GPU{'' if gpus == 1 else 's'}"] if needs.gpus else []
    parts.append(f"{cpus / UNITS:g} CPU core{'' if cpus == UNITS else 's'}")
    if needs.memory is not None and memory is not None:
        parts.append(f"{memory / UNITS:g} GB of memory")
    return _joined(parts)


def _names(nodes: Sequence[NodeView]) -> str:
    return " or ".join(node.name for node in nodes[:_NAMED])


def _listing(clauses: Sequence[str]) -> str:
    rest = len(clauses) - _NAMED
    return ", ".join([*clauses[:_NAMED], *([f"and {rest} more like these"] if rest > 0 else [])])


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
