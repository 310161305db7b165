"""Which GPUs of a node are free when jobs hold parts of some. Pure and exact, in Ray's own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.scheduling.room import UNITS


@dataclass(frozen=True, kw_only=True)
class Held:
    """What an attempt holds on a node.

    Attributes:
        gpus: whole ones, or a part of one.
        device: of which GPU the part is; ``None``: not known yet.
    """

    gpus: float
    device: str | None = None


def free_gpus(total: int, held: Sequence[Held], *, free: float) -> tuple[int, tuple[float, ...]]:
    """The whole GPUs that are free, and of each that is held in part the part that is free.

    A part whose GPU is not known yet is taken to be of the fullest that has room, as Ray packs them.

    Args:
        total: the node's GPUs.
        held: what is known to be held, in the order it was given.
        free: GPUs and parts that are free by Ray's books, in which others' work counts, and which are a moment behind.
    """
    used: dict[str, int] = {}
    parts = [(round(one.gpus * UNITS), one.device) for one in held if 0 < one.gpus < 1]
    for part, device in sorted(parts, key=lambda one: one[1] is None):
        full = [name for name, taken in used.items() if taken + part <= UNITS]
        name = device or max(full, key=lambda name: used[name], default=f"unknown {len(used)}")
        used[name] = used.get(name, 0) + part
    left, whole_held = round(free * UNITS), sum(int(one.gpus) for one in held)
    whole = max(0, min(total - whole_held - len(used), left // UNITS))
    left -= whole * UNITS
    shares = []
    for share in sorted(UNITS - taken for taken in used.values() if taken < UNITS):
        if share <= left:
            left -= share
            shares.append(share / UNITS)
    return whole, tuple(shares)
