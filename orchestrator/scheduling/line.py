"""Whose turn it is: priority first, then the user who has had least, then the job that is due or came first. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from orchestrator.lifecycle import JobRecord
from orchestrator.turn import UNITS, Turn

CHARGE_S = 3600
"""Seconds ahead that a GPU is charged for as soon as it is given: long enough that users take turns within a round,
short beside the day in which use is forgotten, so that what was really used decides soon after."""


def order(queue: Iterable[JobRecord]) -> tuple[JobRecord, ...]:
    """The jobs as those of one user are taken: by priority, deadline, submission, place in it, and job id."""
    return tuple(sorted(queue, key=attrgetter("turn")))


class Line:
    """The queue, one job after another; who is given something is charged for it and steps back.

    Args:
        usage: GPU-seconds of each user, decayed.
    """

    def __init__(self, turns: Iterable[Turn], usage: Mapping[str | None, float]) -> None:
        self._turns, self._usage = turns, usage
        self._parts: defaultdict[str | None, int] = defaultdict(int)
        self._jobs: defaultdict[str | None, int] = defaultdict(int)

    def charge(self, user: str | None, gpu_parts: int) -> None:
        """Note a job that the user runs, or was just given: ``CHARGE_S`` of its GPUs (in ``UNITS`` parts)."""
        self._parts[user] += gpu_parts
        self._jobs[user] += 1

    def __iter__(self) -> Iterator[Turn]:
        """Every job once. Users without use are told apart by how many jobs they run, then by name."""
        by_priority: defaultdict[int, defaultdict[str | None, list[Turn]]] = defaultdict(lambda: defaultdict(list))
        for turn in sorted(self._turns):
            by_priority[turn.below][turn.user].append(turn)
        for by_user in by_priority.values():
            lanes = {user: iter(turns) for user, turns in by_user.items()}
            heap = [self._standing(user) for user in lanes]
            heapq.heapify(heap)
            while heap:
                user = heap[0][-1]
                charged = self._jobs[user]
                for turn in lanes[user]:
                    yield turn
                    if self._jobs[user] != charged:
                        heapq.heapreplace(heap, self._standing(user))
                        break
                else:
                    heapq.heappop(heap)

    def _standing(self, user: str | None) -> tuple[float, int, bool, str, str | None]:
        had = self._usage.get(user, 0.0) + self._parts[user] * CHARGE_S / UNITS
        return had, self._jobs[user], user is not None, user or "", user
