"""Whose use of a board was it: processes to the leases that they, or a process they descend from, opened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from workers.contract import Lease


def use_by_lease(
    used_ns: Mapping[int, int], leases: Sequence[Lease], lineage: Callable[[int], Iterable[int]]
) -> dict[str | None, int]:
    """What each lease used of a board they share, in one unit; ``None`` is what processes of none of them used.

    Empty when no process is of any lease: then nothing is known of them, since the processes may well be theirs under
    other numbers (a container's), or nobody was busy.

    Args:
        used_ns: busy time by pid.
        leases: who holds the board; those of one process have equal parts of what it used.
        lineage: a process and those it descends from, the nearest first.
    """
    by_pid: dict[int, list[str | None]] = {}
    for lease in leases:
        by_pid.setdefault(lease.pid, []).append(lease.lease_id)
    # Parts of a nanosecond, so that the leases of one process have exactly equal ones.
    parts = math.lcm(*map(len, by_pid.values()))
    used: Counter[str | None] = Counter()
    for pid, amount_ns in used_ns.items():
        owners = next((by_pid[each] for each in lineage(pid) if each in by_pid), [None])
        for owner in owners:
            used[owner] += amount_ns * parts // len(owners)
    return dict(used) if used.keys() - {None} else {}
