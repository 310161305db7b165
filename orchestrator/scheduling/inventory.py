"""What is free in the whole cluster, kept so that a place is found without a look at every node. Pure.

Nodes that are alike in all but what is free stand on one shelf, sorted by what is free on them.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.scheduling.room import Needs, Room, free_room, whole_room
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from orchestrator.scheduling.tenancy import Place, Tenant

Rank = tuple[bool, int, int, str, str]
"""Of places that fit, the lower is taken: a GPU in part used before a whole one, then the fullest, then by name."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Supply:
    """The shelves whose nodes could meet some needs if they were empty; other needs may have the same.

    Attributes:
        shelves: all of them; empty when no nodes ever could.
        choices: the same by the job's order of preference; all in one when any type will do.
        types: the accelerator types of their nodes.
    """

    shelves: tuple[Shelf, ...]
    choices: tuple[tuple[Shelf, ...], ...]
    types: frozenset[str | None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Demand:
    """Needs, and what could meet them if nothing ran there."""

    needs: Needs
    supply: Supply

    @property
    def shelves(self) -> tuple[Shelf, ...]:
        """Those whose nodes could meet them; empty when no nodes ever could."""
        return self.supply.shelves

    @property
    def choices(self) -> tuple[tuple[Shelf, ...], ...]:
        """The same by the job's order of preference; all in one when any type will do."""
        return self.supply.choices


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Where a job fits now: its places, and which of its preferences that is, from 0."""

    choice: int
    places: tuple[Place, ...]


class Shelf:
    """Nodes of one kind and size."""

    def __init__(self, node: NodeView) -> None:
        self.node, self.whole = node, whole_room(node)
        self.places: list[Place] = []
        self._by_gpus: list[tuple[int, int, str, str]] = []
        self._by_share: list[tuple[int, int, str, str]] = []
        self._by_id: dict[str, Place] = {}

    def add(self, place: Place) -> None:
        """Put a node on it."""
        self.places.append(place)
        self._by_id[place.room.node.node_id] = place
        self._enter(place)

    def take(self, place: Place, tenant: Tenant) -> None:
        """Give a job its part of the node."""
        self._leave(place)
        place.take(tenant)
        self._enter(place)

    def emptiest(self, count: int) -> list[Room]:
        """So many rooms at most, with the most free GPUs first."""
        return [self._by_id[node_id].room for _, _, _, node_id in self._by_gpus[: -count - 1 : -1]]

    def fitting(self, needs: Needs, until_ns: float) -> Iterator[tuple[Rank, Place]]:
        """Its places where such a job could run from now until then, the best first, each once."""
        return (found for found in self.roomy(needs) if found[1].admits(needs, until_ns))

    def roomy(self, needs: Needs) -> Iterator[tuple[Rank, Place]]:
        """Its places with room for such a job now, also where that is kept for others; the best first, each once."""
        given = set()
        if needs.share:
            for entry in self._from(self._by_share, needs.share, needs.cpus):
                place = self._by_id[entry[3]]
                if entry[3] not in given and place.room.fits(needs):
                    given.add(entry[3])
                    yield (False, *entry), place
        for entry in self._from(self._by_gpus, 1 if needs.share else needs.gpus, needs.cpus):
            place = self._by_id[entry[3]]
            if entry[3] not in given and place.room.fits(needs):
                yield (True, *entry), place

    def has_gpu_for(self, needs: Needs) -> bool:
        """Whether any of its nodes has the GPUs free, whatever else such a job needs."""
        if not needs.share:
            return self._by_gpus[-1][0] >= needs.gpus
        return self._by_gpus[-1][0] > 0 or (bool(self._by_share) and self._by_share[-1][0] >= needs.share)

    @staticmethod
    def _from(entries: list[tuple[int, int, str, str]], amount: int, cpus: int) -> Iterator[tuple[int, int, str, str]]:
        """Entries with so much and so many CPU cores at least, ascending."""
        at = bisect_left(entries, (amount, cpus, "", ""))
        while at < len(entries):
            entry = entries[at]
            if entry[1] < cpus:
                at = bisect_left(entries, (entry[0], cpus, "", ""), at + 1)
                continue
            yield entry
            at += 1

    def _enter(self, place: Place) -> None:
        room = place.room
        name, node_id = room.node.name, room.node.node_id
        insort(self._by_gpus, (room.gpus, room.cpus, name, node_id))
        for share in room.shares:
            insort(self._by_share, (share, room.cpus, name, node_id))

    def _leave(self, place: Place) -> None:
        room = place.room
        name, node_id = room.node.name, room.node.node_id
        del self._by_gpus[bisect_left(self._by_gpus, (room.gpus, room.cpus, name, node_id))]
        for share in room.shares:
            del self._by_share[bisect_left(self._by_share, (share, room.cpus, name, node_id))]


class Inventory:
    """The shelves of a cluster.

    Args:
        label_keys: the labels that jobs ask for; others, such as a node's own id, would put each node on its own shelf.
    """

    def __init__(self, cluster: ClusterView, label_keys: frozenset[str]) -> None:
        self._keys = sorted(label_keys)
        shelves: dict[tuple[object, ...], Shelf] = {}
        self._shelf_of: dict[str, Shelf] = {}
        self.places: dict[str, Place] = {}
        self.vacated: list[Place] = []
        for node in cluster.alive:
            shelf = shelves.setdefault(self._kind(node), Shelf(node))
            place = self.places[node.node_id] = Place(room=free_room(node))
            shelf.add(place)
            self._shelf_of[node.node_id] = shelf
        self.shelves = tuple(shelves.values())
        self._supplies: dict[tuple[object, ...], Supply] = {}
        # Of the sizes of needs only this counts: which of the nodes' sizes they exceed.
        self._cpus = sorted({shelf.whole.cpus for shelf in self.shelves})
        self._memories = sorted({shelf.whole.memory for shelf in self.shelves if shelf.whole.memory is not None})

    def _kind(self, node: NodeView) -> tuple[object, ...]:
        labels = tuple(node.labels.get(key) for key in self._keys)
        sizes = node.gpus_total, node.cpus_total, node.memory_total_gb
        return node.accelerator, node.simulated, node.is_head, *sizes, labels

    def shelf_of(self, place: Place) -> Shelf:
        """Where a node stands."""
        return self._shelf_of[place.room.node.node_id]

    def take(self, places: Iterable[Place], tenant: Tenant) -> None:
        """Give a job its part of each of some nodes."""
        for place in places:
            self.shelf_of(place).take(place, tenant)

    def lodge(self, tenant: Tenant, node_ids: Iterable[str]) -> None:
        """Note who holds a part of some nodes already; what it holds is not free in the view."""
        for place in [self.places[node_id] for node_id in node_ids if node_id in self.places]:
            place.lodge(tenant)
            if tenant.leaving:
                self.vacate(place, tenant)

    def vacate(self, place: Place, tenant: Tenant) -> None:
        """Note that a tenant leaves a node."""
        place.vacate(tenant)
        if place not in self.vacated:
            self.vacated.append(place)

    def claim(self, places: Iterable[Place], job_id: str, needs: Needs, until_ns: float) -> None:
        """Keep what is free or being vacated on some nodes for a job."""
        for place in places:
            place.claim(job_id, needs, until_ns)
            if place in self.vacated and place.room.node.gpus_total and not place.has_gpus_coming:
                self.vacated.remove(place)

    def demand(self, needs: Needs) -> Demand:
        """Look up where such a job could ever run."""
        sizes = needs.gpus, needs.share > 0, needs.nodes, bisect_left(self._cpus, needs.cpus)
        key = needs.accelerators, needs.labels, sizes, bisect_left(self._memories, needs.memory or 0)
        supply = self._supplies.get(key)
        if supply is None:
            supply = self._supplies[key] = self._supply(needs)
        return Demand(needs=needs, supply=supply)

    def _supply(self, needs: Needs) -> Supply:
        shelves = tuple(shelf for shelf in self.shelves if suits(needs, shelf.node) and shelf.whole.fits(needs))
        if needs.nodes > 1:
            large = [team for team in teams(shelves).values() if sum(len(one.places) for one in team) >= needs.nodes]
            shelves = tuple(shelf for team in large for shelf in team)
        choices: tuple[tuple[Shelf, ...], ...] = (shelves,)
        if len(needs.accelerators) > 1:
            choices = tuple(
                tuple(shelf for shelf in shelves if shelf.node.accelerator == accelerator)
                for accelerator in needs.accelerators
            )
        types = frozenset(shelf.node.accelerator for shelf in shelves)
        return Supply(shelves=shelves, choices=choices, types=types)


class Search:
    """Looks for places; remembers for which needs there was none, since room only shrinks while decisions are made."""

    def __init__(self) -> None:
        self._none: defaultdict[tuple[object, ...], list[tuple[Needs, float]]] = defaultdict(list)

    def is_vain(self, needs: Needs, until_ns: float) -> bool:
        """Whether it is known that there is none: what had no room, even for shorter, has none in larger either.

        Nor has what had none whatever the type and the labels.
        """
        any_gpu = needs.any_gpu
        for failed in (self._none[any_gpu, (), ()], self._none[any_gpu, needs.accelerators, needs.labels]):
            for one, shorter_ns in failed:
                if shorter_ns <= until_ns and one.is_within(needs):
                    return True
        return False

    def find(self, demand: Demand, until_ns: float) -> Found | None:
        """As ``find``."""
        needs, found = demand.needs, find(demand, until_ns)
        if found is None:
            own = self._none[needs.any_gpu, needs.accelerators, needs.labels]
            own[:] = [(one, ns) for one, ns in own if not (until_ns <= ns and needs.is_within(one))]
            own.append((needs, until_ns))
        return found


def find(demand: Demand, until_ns: float) -> Found | None:
    """Where such a job could run from now until then; ``None`` when nowhere.

    Its accelerator types are tried in its order of preference. Of the nodes that fit, those without a GPU come first
    for a job that needs none; real ones come before simulated ones, the head last, and the fullest first, so that
    larger places stay whole.
    """
    needs = demand.needs
    for number, shelves in enumerate(demand.choices):
        places = _gang(needs, until_ns, shelves) if needs.nodes > 1 else _single(needs, until_ns, shelves)
        if places:
            return Found(choice=number, places=places)
    return None


def suits(needs: Needs, node: NodeView) -> bool:
    """Whether the node's kind is right, whatever its size."""
    if needs.labels and any(node.labels.get(key) != value for key, value in needs.labels):
        return False
    if needs.accelerators:
        return node.accelerator in needs.accelerators and node.gpus_total > 0
    return not needs.any_gpu or node.gpus_total > 0


def kind_rank(needs: Needs, node: NodeView) -> tuple[bool, bool, bool]:
    """Lower is taken first. A job without a GPU keeps off nodes that have some."""
    return not needs.any_gpu and node.gpus_total > 0, node.simulated, node.is_head


def _single(needs: Needs, until_ns: float, shelves: Sequence[Shelf]) -> tuple[Place, ...]:
    best: tuple[tuple[bool, bool, bool], Rank, Place] | None = None
    for shelf in shelves:
        kind = kind_rank(needs, shelf.node)
        if (best is not None and kind > best[0]) or not shelf.has_gpu_for(needs):
            continue
        found = next(shelf.fitting(needs, until_ns), None)
        if found is not None and (best is None or (kind, found[0]) < best[:2]):
            best = kind, *found
    return () if best is None else best[2:]


def _gang(needs: Needs, until_ns: float, shelves: Sequence[Shelf]) -> tuple[Place, ...]:
    """Distinct nodes of one team; of several teams that have room, that of the best nodes."""
    found = []
    for team in teams(shelves).values():
        ranked = [
            (kind_rank(needs, shelf.node), rank, place)
            for shelf in team
            for rank, place in itertools.islice(shelf.fitting(needs, until_ns), needs.nodes)
        ]
        if len(ranked) >= needs.nodes:
            found.append(sorted(ranked, key=lambda one: one[:2])[: needs.nodes])
    best = min(found, key=lambda ranked: [one[:2] for one in ranked], default=[])
    return tuple(place for _, _, place in best)


def teams(shelves: Sequence[Shelf]) -> dict[tuple[str | None, bool], list[Shelf]]:
    """Shelves whose nodes may work on one job together: of one accelerator type, all real or all simulated."""
    found: defaultdict[tuple[str | None, bool], list[Shelf]] = defaultdict(list)
    for shelf in shelves:
        found[shelf.node.accelerator, shelf.node.simulated].append(shelf)
    return found
