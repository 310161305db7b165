"""The leases of a node: those that are open, with whose process holds each, and those that ended a moment ago.

Not thread-safe: ``node`` holds its lock around every call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from workers.contract import Lease, Phase, Power
from workers.errors import InputError
from workers.telemetry.state import HeldLease, NodeState


@dataclass(frozen=True, kw_only=True)
class LeaseRequest:
    """What an attempt asks for.

    Attributes:
        devices: UUIDs or indices, as the launcher named them.
        pid: the process whose activity and death the lease follows.
        cpus: cores that process may use; what makes a simulated device fully busy.
        phase: the phase it begins in.
        power: the limit wished for on each device.
        rank: which process of the attempt it is.
    """

    job_id: str
    attempt: int
    devices: tuple[str, ...]
    pid: int
    cpus: float
    phase: Phase | None = None
    power: Power = field(default_factory=Power)
    rank: int = 0


class Leases:
    """See the module.

    Args:
        node: its name.
        started: what makes a process number this process and no other; ``None`` when it is gone.

    Attributes:
        open: lease by id; ``closed``: those that ended a moment ago, and when.
    """

    def __init__(self, node: str, started: Callable[[int], int | None]) -> None:
        self.open: dict[str, Lease] = {}
        self.closed: dict[str, tuple[Lease, int]] = {}
        self._node, self._started = node, started
        self._wishes: dict[str, tuple[Power, int | None]] = {}
        # Those whose holders have not been heard of since they were taken over.
        self._unheard: set[str] = set()

    def enter(self, lease: Lease, power: Power) -> None:
        """It is open from now on, and asked for ``power``."""
        self.open[lease.lease_id] = lease
        self._wishes[lease.lease_id] = power, self._started(lease.pid)
        self.closed.pop(lease.lease_id, None)

    def end(self, lease: Lease, closed_ns: int) -> None:
        """It ended then."""
        self.open.pop(lease.lease_id, None)
        self.closed[lease.lease_id] = (lease, closed_ns)
        self._wishes.pop(lease.lease_id, None)
        self._unheard.discard(lease.lease_id)

    def change_phase(self, lease_id: str, phase: Phase | None) -> Lease:
        """The open lease, in ``phase`` from now on.

        Raises:
            InputError: it is not open.
        """
        lease = self.open[lease_id] = replace(self.held(lease_id), phase=phase)
        return lease

    def held(self, lease_id: str) -> Lease:
        """The open lease.

        Raises:
            InputError: it is not open.
        """
        if lease_id not in self.open:
            raise InputError(f"lease {lease_id} is not open on {self._node}; open one first.")
        return self.open[lease_id]

    def of_rank(self, request: LeaseRequest) -> Lease | None:
        """The lease of who asks: the open one, else one that ended a moment ago; ``None`` without either."""
        wanted = (request.job_id, request.attempt, request.rank)
        known = [*self.open.values(), *(lease for lease, _ in self.closed.values())]
        return next((lease for lease in known if (lease.job_id, lease.attempt, lease.rank) == wanted), None)

    def is_alive(self, lease_id: str) -> bool:
        """Whether the very process that opened the lease still runs."""
        started = self._wishes[lease_id][1]
        return started is not None and self._started(self.open[lease_id].pid) == started

    def heard(self, lease_id: str) -> None:
        """Its holder is back."""
        self._unheard.discard(lease_id)

    def orphans(self) -> list[str]:
        """Open leases whose holders ended without having been heard of."""
        return [lease_id for lease_id in self._unheard if not self.is_alive(lease_id)]

    def forget_closed(self, *, before_ns: int) -> bool:
        """Leases that ended before then are in the log; whether there were any."""
        kept = {key: value for key, value in self.closed.items() if value[1] >= before_ns}
        has_old, self.closed = len(kept) < len(self.closed), kept
        return has_old

    def state(self) -> tuple[HeldLease, ...]:
        """The open ones, as another agent can take them up."""
        return tuple(
            HeldLease(lease=lease, power=self._wishes[key][0], started=self._wishes[key][1])
            for key, lease in self.open.items()
        )

    def resume(self, state: NodeState, *, is_here: Callable[[str], bool]) -> list[tuple[Lease, Power]]:
        """Take up those of ``state``, without devices that are not here now; gives those whose processes still run."""
        self.closed = {lease.lease_id: (lease, closed_ns) for lease, closed_ns in state.closed}
        for held in state.held:
            lease = replace(held.lease, devices=tuple(filter(is_here, held.lease.devices)))
            self.open[lease.lease_id] = lease
            self._wishes[lease.lease_id] = (held.power, held.started)
        return [(lease, self._wishes[key][0]) for key, lease in self.open.items() if self.is_alive(key)]

    def settle(self, found: dict[str, Lease], unheard: set[str]) -> None:
        """These are open, by what was found out since ``resume``; of ``unheard`` nothing was heard."""
        self.open, self._unheard = found, unheard & found.keys()

    def refuse(self, lease: Lease) -> NoReturn:
        """Somebody wants to hold what this lease holds.

        Raises:
            InputError: always.
        """
        who = f"rank {lease.rank} of attempt" if lease.rank else "attempt"
        raise InputError(
            f"{who} {lease.attempt} of {lease.job_id} already holds a lease on {self._node} "
            f"(process {lease.pid}). Wait for it to end, or use another job id."
        )
