"""Who holds what on a node, until when, and for whom it is kept. The mutable part of a decision."""

from __future__ import annotations

import math
import sys
from bisect import insort
from dataclasses import dataclass, field

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.scheduling.room import Needs, Room
from orchestrator.turn import Turn

SOME_DAY = sys.float_info.max
"""When a job without a time limit ends: later than any that has one, ns since the epoch."""


@dataclass(kw_only=True, slots=True, eq=False)
class Tenant:
    """A job that holds a part of one or more nodes.

    Attributes:
        end_ns: when it has ended at the latest, ns since the epoch; ``inf`` when that is not known.
        leaving: whether it was asked to leave: its part is as good as free, and nobody asks it again.
    """

    job: JobRecord
    needs: Needs
    end_ns: float
    leaving: bool = False


@dataclass(kw_only=True, slots=True, eq=False)
class Promise:
    """A part of a node kept for a job that will fit when others have ended.

    Attributes:
        at_ns: when that is, at the latest; ``SOME_DAY`` when one of the others has no known end.
        left: what the node has then beside it.
    """

    job_id: str
    needs: Needs
    at_ns: float
    left: Room


@dataclass(kw_only=True, slots=True, eq=False)
class Place:
    """A node while decisions are made.

    Attributes:
        room: what is free now.
        tenants: the first to end first; of unknown ends the largest first, so that fewest are waited for.
        coming: what will be when all that are leaving have left, less what is kept of that for ``claimed_by``;
            ``None`` while nobody leaves: the same as ``room``.
    """

    room: Room
    tenants: list[Tenant] = field(default_factory=list)
    coming: Room | None = None
    claimed_by: str = ""
    promises: list[Promise] = field(default_factory=list)

    @property
    def has_gpus_coming(self) -> bool:
        """Whether any GPU, or part of one, is free or being vacated that is not kept for a job."""
        coming = self.coming or self.room
        return coming.gpus > 0 or bool(coming.shares)

    def in_the_way(self, needs: Needs, until_ns: float) -> str | None:
        """The job for which room is kept that such a job would use, if it ran here until then; ``None``: no job."""
        if self.coming is not None and not self.coming.fits(needs):
            return self.claimed_by
        for promise in self.promises:
            if promise.at_ns < until_ns and not promise.left.fits(needs):
                return promise.job_id
        return None

    def lender(self, needs: Needs, until_ns: float) -> str | None:
        """The job whose promised room such a job would use, and give back in time; ``None``: nobody's."""
        lenders = (one.job_id for one in self.promises if one.at_ns >= until_ns and not one.left.fits(needs))
        return next(lenders, None)

    def admits(self, needs: Needs, until_ns: float) -> bool:
        """Whether such a job, for which there is room, could use it until then: nothing of it is kept for others."""
        return (self.coming is None and not self.promises) or self.in_the_way(needs, until_ns) is None

    def will_admit(self, needs: Needs, until_ns: float) -> bool:
        """Whether it could once all that are leaving have left."""
        return (self.coming or self.room).fits(needs) and self.in_the_way(needs, until_ns) is None

    def take(self, tenant: Tenant) -> None:
        """Give a job its part, from now on."""
        self.room.take(tenant.needs)
        if self.coming is not None:
            self.coming.take(tenant.needs)
        self.lodge(tenant)
        self._hold_later(tenant.needs, tenant.end_ns)

    def lodge(self, tenant: Tenant) -> None:
        """Note a job whose part is not free already."""
        insort(self.tenants, tenant, key=_by_end)

    def claim(self, job_id: str, needs: Needs, until_ns: float) -> None:
        """Keep a part for a job that gets it as soon as those leaving have left."""
        if self.coming is None:
            self.coming = self.room.copy()
        self.coming.take(needs)
        self.claimed_by = job_id
        self._hold_later(needs, until_ns)

    def vacate(self, tenant: Tenant) -> None:
        """Note that a tenant is leaving."""
        if self.coming is None:
            self.coming = self.room.copy()
        self.coming.give(tenant.needs)
        for promise in self.promises:
            if tenant.end_ns > promise.at_ns:
                promise.left.give(tenant.needs)

    def later(self, needs: Needs) -> tuple[int, int, float]:
        """When such a job fits at the latest; the lower is the sooner.

        Returns:
            1 if someone we do not know holds the room, else 0; unknown ends among those it waits for; the time, ns.
        """
        room, unknown, at_ns = self._promised_room(), 0, 0.0
        for tenant in self.tenants:
            if room.fits(needs):
                break
            if tenant.leaving:
                continue
            room.give(tenant.needs)
            unknown += tenant.end_ns == math.inf
            at_ns = min(tenant.end_ns, SOME_DAY)
        # What is held by nobody we know of is given back some day, later than all else.
        known = room.fits(needs)
        return (0 if known else 1, unknown, at_ns if known else SOME_DAY)

    def promise(self, job_id: str, needs: Needs, at_ns: float, until_ns: float) -> None:
        """Keep a part for a job from then on."""
        left = self._promised_room()
        for tenant in self.tenants:
            if not tenant.leaving and (tenant.end_ns <= at_ns or (at_ns == SOME_DAY and not left.fits(needs))):
                left.give(tenant.needs)
        left.take(needs)
        for other in self.promises:
            if at_ns <= other.at_ns < until_ns:
                other.left.take(needs)
        self.promises.append(Promise(job_id=job_id, needs=needs, at_ns=at_ns, left=left))

    def _promised_room(self) -> Room:
        room = (self.coming or self.room).copy()
        for promise in self.promises:
            room.take(promise.needs)
        return room

    def _hold_later(self, needs: Needs, until_ns: float) -> None:
        for promise in self.promises:
            if promise.at_ns < until_ns:
                promise.left.take(needs)


def _by_end(tenant: Tenant) -> tuple[float, int, int, str]:
    return tenant.end_ns, -tenant.needs.gpus, -tenant.needs.share, tenant.job.job_id


def tenant_of(job: JobRecord, needs: Needs, now_ns: int) -> Tenant:
    """A running job as a tenant; one that is over its time is about to end."""
    leaving = job.state is JobState.STOPPING
    started_ns = job.attempts[-1].started_ns
    end_ns = float(now_ns) if leaving else max(float(now_ns), ends(job.turn, started_ns))
    return Tenant(job=job, needs=needs, end_ns=end_ns, leaving=leaving)


def ends(turn: Turn, started_ns: float) -> float:
    """When an attempt of the job that starts then has ended at the latest, ns since the epoch; ``inf``: not known."""
    return started_ns + turn.limit_s * 1e9
