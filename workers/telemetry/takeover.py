"""The time between an agent that was killed and the one in its place: what happened to leases, and how it is booked.

Pure. A restarted agent knows the state that was written last, what its meters show now, and what the attempts tell that
went on meanwhile; all three together are played into the books in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workers.contract import Lease, Phase, Reading
from workers.telemetry.booking import DeviceBook
from workers.telemetry.stretches import Claim
from workers.units import apportion

Step = tuple[int, tuple[Lease, ...]]
"""From when on, ns since the epoch, which leases are open, in their phases then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What an attempt tells of itself after it was without an agent.

    Attributes:
        phases: each phase it went through since it opened its lease, and when it began, in order.
        closed_ns: when its work was done; ``None`` while it goes on.
    """

    phases: tuple[tuple[int, Phase | None], ...] = ()
    closed_ns: int | None = None


class Takeover:
    """The time between a state and a new agent, during which leases may have changed phase or ended.

    It is over once every holder that still lives has told, or ``deadline_ns`` has come. Not thread-safe.

    Args:
        since_ns: the state's time.
        held: the leases that were open then.
        waiting: of those, the ones whose holders still live.
    """

    def __init__(self, *, since_ns: int, held: Sequence[Lease], waiting: set[str], deadline_ns: int) -> None:
        self.since_ns, self.deadline_ns, self.waiting = since_ns, deadline_ns, waiting
        self._leases = {lease.lease_id: lease for lease in held}
        self._changes: list[tuple[int, str, Phase | None]] = []
        self._ends: dict[str, int] = {}

    def tell(self, lease_id: str, told: Told) -> None:
        """Take in what a holder says; what the old agent cannot have heard before it was killed is in it too."""
        self.waiting.discard(lease_id)
        self._changes += [(time_ns, lease_id, phase) for time_ns, phase in told.phases]
        if told.closed_ns is not None:
            self.end(lease_id, told.closed_ns)

    def end(self, lease_id: str, time_ns: int) -> None:
        """The lease ended at ``time_ns``."""
        self.waiting.discard(lease_id)
        self._ends[lease_id] = max(self.since_ns, time_ns)

    def ended_ns(self, lease_id: str) -> int | None:
        """When it ended; ``None`` when it goes on."""
        return self._ends.get(lease_id)

    def is_over(self, now_ns: int) -> bool:
        """Whether nobody is waited for any more; a clock that was set back ends it too."""
        return not self.waiting or not self.since_ns <= now_ns < self.deadline_ns

    def steps(self) -> list[Step]:
        """The leases that were open from each time on, in their phases then; the first time is ``since_ns``."""
        changes = sorted(((max(self.since_ns, at), key, phase) for at, key, phase in self._changes), key=lambda c: c[0])
        times = sorted({self.since_ns, *(at for at, _, _ in changes), *self._ends.values()})
        leases, steps = dict(self._leases), []
        for time_ns in times:
            for at, lease_id, phase in changes:
                if at == time_ns and lease_id in leases:
                    leases[lease_id] = replace(leases[lease_id], phase=phase)
            for lease_id, at in self._ends.items():
                if at <= time_ns:
                    leases.pop(lease_id, None)
            steps.append((time_ns, tuple(leases.values())))
        return steps


def play(book: DeviceBook, edges: Sequence[tuple[int, Sequence[Claim]]], readings: Sequence[Reading]) -> None:
    """Tell a book what happened, in the order in which it did; an edge that changes nothing is none."""
    standing = book.standing()
    claims = standing.stretches[-1][1] if standing else ()
    for time_ns, held in edges:
        while readings and readings[0].time_ns <= time_ns:
            book.observe(readings[0])
            readings = readings[1:]
        if tuple(held) != claims:
            book.edge(time_ns, held)
            claims = tuple(held)
    for reading in readings:
        book.observe(reading)


def play_host(
    book: DeviceBook,
    edges: Sequence[tuple[int, Sequence[Claim]]],
    used: Mapping[str | None, int],
    *,
    until_ns: int,
) -> None:
    """The same of a device that serves the whole host: what was ``used`` from the first edge on, evenly over time."""
    times = [time_ns for time_ns, _ in edges]
    spans = [max(0, end - begin) for begin, end in zip(times, [*times[1:], until_ns], strict=True)]
    weights = spans if any(spans) else [1] * len(spans)
    parts = {lease_id: apportion(amount, weights) for lease_id, amount in used.items()}
    for number, (time_ns, claims) in enumerate(edges):
        book.edge(time_ns, claims)
        book.weigh({lease_id: part[number] for lease_id, part in parts.items()})
