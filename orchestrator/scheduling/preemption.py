"""Which running jobs make room for one of higher priority: as few and as unimportant as will do, the latest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.scheduling.inventory import Demand, Inventory, Shelf, kind_rank, teams
from orchestrator.scheduling.room import Needs
from orchestrator.scheduling.tenancy import Place, Tenant

MOST_PREEMPTORS = 8
"""Jobs that others make room for in one decision, so that it ends in time; the next decision goes on."""

Price = tuple[int, list[int], int, int]
"""Of a set of victims, lower is better: how many, their priorities, the GPUs they lose, and since when they run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Eviction:
    """The victims, and the places where the job fits when they have left."""

    places: tuple[Place, ...]
    victims: tuple[Tenant, ...]


class Preemptor:
    """Finds victims; remembers for which needs there were none, since room only shrinks while decisions are made."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._lowest = min((_priority(tenant) for tenant in self._tenants() if _may_leave(tenant)), default=None)
        self._none_for: defaultdict[tuple[object, ...], list[Needs]] = defaultdict(list)
        self._times = 0

    def is_idle(self, priority: int) -> bool:
        """Whether nothing that runs could make room for a job of this priority, whatever it needs."""
        return self._lowest is None or priority <= self._lowest or self._times >= MOST_PREEMPTORS

    def evict(self, demand: Demand, priority: int, now_ns: int) -> Eviction | None:
        """Make room for such a job now; ``None`` when no set of victims of lower priority would."""
        needs = demand.needs
        failed = self._none_for[needs.accelerators, needs.labels]
        if any(one.is_within(needs) for one in failed):
            return None
        found = _cheapest(demand, priority, now_ns)
        if found is None or not found.victims:
            failed.append(needs)
            return None
        self._times += 1
        places = self._inventory.places
        for tenant in found.victims:
            for node_id in tenant.job.attempts[-1].nodes:
                if node_id in places:
                    self._inventory.vacate(places[node_id], tenant)
            tenant.leaving = True
        return found

    def _tenants(self) -> Iterable[Tenant]:
        return (tenant for place in self._inventory.places.values() for tenant in place.tenants)


def _cheapest(demand: Demand, priority: int, now_ns: int) -> Eviction | None:
    needs = demand.needs
    best: tuple[tuple[object, ...], Eviction] | None = None
    for choice, shelves in enumerate(demand.choices):
        for team in teams(shelves).values():
            offers = _offers(needs, team, priority, now_ns)[: needs.nodes]
            if len(offers) < needs.nodes:
                continue
            by_id = {tenant.job.job_id: tenant for offer in offers for tenant in offer[-2]}
            victims = [by_id[job_id] for job_id in sorted(by_id)]
            rank = _price(victims), choice, offers[0][1:-2]
            if best is None or rank < best[0]:
                best = rank, Eviction(places=tuple(offer[-1] for offer in offers), victims=tuple(victims))
    return None if best is None else best[1]


def _offers(needs: Needs, team: Sequence[Shelf], priority: int, now_ns: int) -> list[tuple[Any, ...]]:
    """The nodes that could be vacated, the cheapest first: price, what tells equals apart, victims, place."""
    offers = []
    for shelf in team:
        for place in shelf.places:
            leaving = _victims(place, needs, priority, now_ns)
            if leaving is not None:
                node = place.room.node
                offers.append((_price(leaving), kind_rank(needs, node), node.name, node.node_id, leaving, place))
    return sorted(offers, key=lambda offer: offer[:-2])


def _victims(place: Place, needs: Needs, priority: int, now_ns: int) -> list[Tenant] | None:
    """Who would have to leave this node; nobody where the job fits beside all; ``None`` where that is of no use.

    A node promised to an earlier job is left alone: its room is spoken for.
    """
    if any(promise.at_ns > now_ns for promise in place.promises):
        return None
    if place.will_admit(needs, now_ns):
        return []
    able = [one for one in place.tenants if -one.job.turn.below < priority and _may_leave(one)]
    if not able:
        return None
    # The least important first; and the largest first, in case one leaves more room than several.
    by_rank = sorted(able, key=_rank)
    found = _enough(place, needs, by_rank)
    if len({one.needs.gpu_parts for one in able}) == 1:
        return found
    by_size = sorted(by_rank, key=lambda one: -one.needs.gpu_parts)
    return min(filter(None, (found, _enough(place, needs, by_size))), key=_price, default=None)


def _enough(place: Place, needs: Needs, able: Sequence[Tenant]) -> list[Tenant] | None:
    """The first so many that make room, less those that need not have left."""
    leaving: list[Tenant] = []
    for tenant in able:
        leaving.append(tenant)
        if _makes_room(place, needs, leaving):
            break
    else:
        return None
    for tenant in reversed(leaving[:-1]):
        others = [one for one in leaving if one is not tenant]
        if _makes_room(place, needs, others):
            leaving = others
    return leaving


def _makes_room(place: Place, needs: Needs, leaving: Sequence[Tenant]) -> bool:
    """Whether the job surely fits when they have left.

    Which GPU a part was of is not known. Were it guessed, a job might be made to leave whose part is of another GPU
    than the one that is to be whole, start there again, and be made to leave again: parts become whole GPUs with the
    last that shares any.
    """
    room = place.coming or place.room
    if room.gpus + sum(one.needs.gpus + (one.needs.share > 0) for one in leaving) < needs.gpus:
        return False  # a part makes a whole one at most
    room = room.copy()
    gone = {id(tenant) for tenant in leaving}
    staying = [one for one in place.tenants if not one.leaving and id(one) not in gone]
    shared = any(one.needs.share for one in staying)
    for tenant in leaving:
        room.give(tenant.needs, apart=shared)
    return room.fits(needs)


def _price(leaving: Sequence[Tenant]) -> Price:
    parts = sum(tenant.needs.gpu_parts for tenant in leaving)
    return len(leaving), sorted(map(_priority, leaving)), parts, -sum(map(_started_ns, leaving))


def _may_leave(tenant: Tenant) -> bool:
    return not tenant.leaving and tenant.job.spec.schedule.preemptible


def _priority(tenant: Tenant) -> int:
    return -tenant.job.turn.below


def _rank(tenant: Tenant) -> tuple[int, int, str]:
    turn = tenant.job.turn
    return -turn.below, -tenant.job.attempts[-1].started_ns, turn.job_id


def _started_ns(tenant: Tenant) -> int:
    return tenant.job.attempts[-1].started_ns
