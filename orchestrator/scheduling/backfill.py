"""Which room is kept for a job that fits nowhere now, so that smaller jobs behind it do not keep it waiting for ever.

The first blocked job for each set of accelerator types is promised the place where it fits soonest, by the time limits
of those who hold it. Jobs behind it may use what it leaves, or the place itself if their own limit ends before. So room
is not wasted, and what the promised job waits for is only ever what was there before it, or ends in time.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.scheduling.inventory import Demand, Inventory, Shelf, kind_rank, teams
from orchestrator.scheduling.room import Needs
from orchestrator.scheduling.tenancy import SOME_DAY, Place

MOST_PROMISES = 64
"""Kept in one decision, so that it ends in time: a promise costs a look at all that runs. Six types have 63 sets."""

Key = tuple[frozenset[str | None], bool, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Room that is kept for a job.

    Attributes:
        at_ns: when it will be free at the latest, ns since the epoch; ``SOME_DAY`` when that is not known.
    """

    places: tuple[Place, ...]
    at_ns: float


class Backfill:
    """The room that one decision keeps."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._first: set[Key] = set()

    @property
    def is_over(self) -> bool:
        """Whether no room is kept for anybody any more: nothing is being vacated, and all promises were made."""
        return not self._inventory.vacated and len(self._first) >= MOST_PROMISES

    def claim(self, job_id: str, demand: Demand, length_ns: float, now_ns: int) -> Kept | None:
        """Keep what is being vacated for the job, if it then has all that it needs."""
        places = self._vacated(demand, now_ns + length_ns)
        self._inventory.claim(places, job_id, demand.needs, now_ns + length_ns)
        return Kept(places=places, at_ns=now_ns) if places else None

    def is_first(self, demand: Demand) -> bool:
        """Whether such a job is the first that waits for its accelerator types, so that it is promised a place."""
        return len(self._first) < MOST_PROMISES and self._key(demand) not in self._first

    def promise(self, job_id: str, demand: Demand, length_ns: float, now_ns: int) -> Kept:
        """Keep the place where the job fits soonest."""
        self._first.add(self._key(demand))
        kept = _soonest(demand, now_ns)
        for place in kept.places:
            place.promise(job_id, demand.needs, kept.at_ns, kept.at_ns + length_ns)
        return kept

    def _key(self, demand: Demand) -> Key:
        return demand.supply.types, demand.needs.any_gpu, demand.needs.labels

    def _vacated(self, demand: Demand, until_ns: float) -> tuple[Place, ...]:
        needs = demand.needs
        if not self._inventory.vacated:
            return ()
        coming = [place for place in self._inventory.vacated if place.will_admit(needs, until_ns)]
        if not any(self._inventory.shelf_of(place) in demand.shelves for place in coming):
            return ()
        for shelves in demand.choices:
            for team in teams(shelves).values():
                here = coming if needs.nodes == 1 else [place for shelf in team for place in shelf.places]
                fits = [p for p in here if self._inventory.shelf_of(p) in team and p.will_admit(needs, until_ns)]
                if len(fits) >= needs.nodes:
                    # Nodes that nobody has to leave come last: they are of use to others until then.
                    fits.sort(key=lambda place: (place.coming is None, place.room.node.name, place.room.node.node_id))
                    return tuple(fits[: needs.nodes])
        return ()


def _soonest(demand: Demand, now_ns: int) -> Kept:
    """Of all capable teams, the nodes on which the last of its parts fits soonest."""
    needs, best = demand.needs, None
    for choice, shelves in enumerate(demand.choices):
        for team in teams(shelves).values():
            ranked = sorted(
                (place.later(needs), choice, *_steady(needs, shelf, place), place)
                for shelf in team
                for place in shelf.places
            )[: needs.nodes]
            if best is None or ranked[-1] < best[-1]:
                best = ranked
    assert best is not None, "a job that no nodes could run is promised none"
    unknown_holder, unknown_ends, at_ns = best[-1][0]
    at_ns = SOME_DAY if unknown_holder or unknown_ends else max(at_ns, float(now_ns))
    return Kept(places=tuple(one[-1] for one in best), at_ns=at_ns)


def _steady(needs: Needs, shelf: Shelf, place: Place) -> tuple[tuple[bool, bool, bool], str, str]:
    """What tells places apart that fit equally soon: the same in every decision, so that a promise does not wander."""
    return kind_rank(needs, shelf.node), place.room.node.name, place.room.node.node_id
