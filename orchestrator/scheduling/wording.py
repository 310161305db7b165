"""Quantities, types and nodes in words, as the sentences about places use them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.scheduling.room import UNITS, Needs, Room
from orchestrator.scheduling.snapshot import ClusterView, NodeView

NAMED = 3
"""Nodes or jobs named in one sentence; the rest are counted."""


def wanted(needs: Needs) -> str:
    """One GPU, or the part of one, of the types a job takes."""
    whole = " or ".join(_with_article(name) for name in needs.accelerators) or "an accelerator"
    return f"{part(needs.share)} of {whole}" if needs.share else whole


def several(needs: Needs) -> str:
    """As many GPUs as a job takes on one node: ``8 A100 or H100``."""
    return f"{needs.gpus} {' or '.join(needs.accelerators) or 'GPUs'}"


def inventory_of(cluster: ClusterView) -> str:
    """The accelerators of the nodes that answer."""
    kinds = sorted((name or "GPU of no known type", count) for name, count in cluster.gpus_by_type.items())
    return ", ".join(f"{name} x{count}" for name, count in kinds) or "no accelerator"


def needed(needs: Needs) -> str:
    """All that a job needs on a node."""
    return _quantities(needs, needs.gpus, needs.share, needs.cpus, needs.memory)


def amount(room: Room, needs: Needs) -> str:
    """What a room has of what a job needs."""
    return _quantities(needs, room.gpus, room.shares[-1] if room.shares else 0, room.cpus, room.memory)


def part(share: int) -> str:
    """A part of a GPU as its user writes it."""
    return f"{share / UNITS:g}"


def names(nodes: Sequence[NodeView]) -> str:
    """Nodes by name: ``a``, ``a and b``, ``a, b, c and 5 more``."""
    named = [node.name for node in nodes[:NAMED]]
    rest = len(nodes) - NAMED
    return joined([*named, *([f"{rest} more"] if rest > 0 else [])])


def clauses(first: Sequence[str], count: int) -> str:
    """The first few of ``count`` clauses."""
    rest = count - min(NAMED, len(first))
    return ", ".join([*first[:NAMED], *([f"and {rest} more like these"] if rest > 0 else [])])


def joined(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _with_article(name: str) -> str:
    """As said aloud: an A100, an H100, an L4, an RTX-3090, a T4."""
    return f"{'an' if name[:1] in 'AEFHILMNORSX' else 'a'} {name}"


def _quantities(needs: Needs, gpus: int, share: int, cpus: int, memory: int | None) -> str:
    """The quantities a job asks for at all; memory only where it is known."""
    parts = []
    if needs.gpus or (needs.share and gpus):
        parts.append(f"{gpus} GPU{'' if gpus == 1 else 's'}")
    elif needs.share:
        parts.append(f"{part(share)} of a GPU")
    parts.append(f"{cpus / UNITS:g} CPU core{'' if cpus == UNITS else 's'}")
    if needs.memory is not None and memory is not None:
        parts.append(f"{memory / UNITS:g} GB of memory")
    return joined(parts)
