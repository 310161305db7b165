"""Why a job got its place, or none yet: sentences for the person whose job it is. For why never: ``refusals``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.lifecycle import JobRecord
from orchestrator.scheduling.inventory import Demand, teams
from orchestrator.scheduling.room import Needs
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.scheduling.tenancy import SOME_DAY, Place
from orchestrator.scheduling.wording import NAMED, amount, clauses, names, needed, part, wanted


def why_here(needs: Needs, choice: int, nodes: Sequence[NodeView], lender: str | None = None) -> str:
    """Why ``nodes`` were taken: ``choice`` is their type's place in the job's order of preference, from 0.

    ``lender`` is the job that the room is kept for, and that has it back in time.
    """
    until = f", and it ends before {lender} can use the room" if lender is not None else ""
    have = f"{names(nodes)} {'has' if len(nodes) == 1 else 'have'}"
    if not needs.any_gpu:
        return f"needs no GPU, and {have} the CPU cores{until}"
    has = f"{have} {_free(needs, nodes[0].accelerator)}{' each' if len(nodes) > 1 else ''}"
    if not needs.accelerators:
        return f"any accelerator will do, and {has}{until}"
    if len(needs.accelerators) == 1:
        return f"{has}{until}"
    if choice == 0:
        return f"first choice of {len(needs.accelerators)}: {has}{until}"
    earlier = " or ".join(needs.accelerators[:choice])
    return f"choice {choice + 1} of {len(needs.accelerators)}: {has}, and no {earlier} has room{until}"


class Explainer:
    """What jobs wait for. For the end of a decision, when rooms change no more: what is free is worded once."""

    def __init__(self) -> None:
        self._worded: dict[tuple[object, ...], str] = {}

    def why_later(self, demand: Demand) -> str:
        """What a job waits for that some nodes could run, but not now."""
        needs, shelves = demand.needs, demand.shelves
        if needs.nodes > 1:
            return _why_gang_later(demand)
        if any(shelf.has_gpu_for(needs) for shelf in shelves):
            keeper = _keeper(demand)
            if keeper is not None:
                return f"waits for {keeper[1]}, which comes first: the room on {keeper[0]} is kept for it"
        elif needs.gpus == 1 or needs.share:
            gpus = sum(shelf.node.gpus_total * len(shelf.places) for shelf in shelves)
            return f"waits for {wanted(needs)}: {'the only one is' if gpus == 1 else f'all {gpus} are'} busy"
        return f"waits for {needed(needs)} on one node: {self._left(demand)}"

    def _left(self, demand: Demand) -> str:
        needs = demand.needs
        key = demand.shelves, needs.gpus > 0, needs.share > 0, needs.memory is not None
        if key not in self._worded:
            self._worded[key] = _left(demand)
        return self._worded[key]


def why_promised(places: Sequence[Place], at_ns: float, now_ns: int) -> str:
    """What is kept for the first in line, and by when it has it."""
    when = "" if at_ns == SOME_DAY else f", free in {_duration(at_ns - now_ns)} at the latest"
    return f"next in line for {names([place.room.node for place in places])}{when}"


def why_claimed(places: Sequence[Place]) -> str:
    """What is being made free for the job."""
    vacated = [place for place in places if any(tenant.leaving for tenant in place.tenants)]
    jobs = sorted({one.job.job_id for place in vacated for one in place.tenants if one.leaving})
    who = f"{', '.join(jobs[:NAMED])}{f' and {len(jobs) - NAMED} more' if len(jobs) > NAMED else ''}"
    return f"waits for {who} to leave {names([place.room.node for place in vacated])}, where it starts next"


def why_preempted(victim: JobRecord, job: JobRecord, nodes: Sequence[NodeView]) -> str:
    """Why a running job has to leave."""
    theirs, own = job.spec.schedule.priority, victim.spec.schedule.priority
    return f"makes room on {names(nodes)} for {job.job_id}, whose priority is {theirs} and not {own}"


def _keeper(demand: Demand) -> tuple[str, str] | None:
    """A node that has room now, and the job it is kept for."""
    for shelf in demand.shelves:
        for _, place in shelf.roomy(demand.needs):
            job_id = place.in_the_way(demand.needs, math.inf)
            if job_id is not None:
                return place.room.node.name, job_id
    return None


def _why_gang_later(demand: Demand) -> str:
    """Counted on the nodes of the one type that comes nearest."""
    needs = demand.needs
    counts = [
        (sum(1 for shelf in team for _ in shelf.roomy(needs)), sum(len(shelf.places) for shelf in team))
        for team in teams(demand.shelves).values()
    ]
    ready, there = max(counts)
    room = f"{ready} of {there} {'has' if ready == 1 else 'have'} room now"
    if ready >= needs.nodes:
        room += ", kept in part for jobs that come first"
    return f"waits for {needed(needs)} on each of {needs.nodes} nodes at once: {room}"


def _left(demand: Demand) -> str:
    """What is free on the nodes that come nearest."""
    rooms = [room for shelf in demand.shelves for room in shelf.emptiest(NAMED)]
    rooms.sort(key=lambda room: (-room.gpus, -room.cpus, room.node.name, room.node.node_id))
    count = sum(len(shelf.places) for shelf in demand.shelves)
    return clauses([f"{room.node.name} has {amount(room, demand.needs)} free" for room in rooms[:NAMED]], count)


def _free(needs: Needs, accelerator: str | None) -> str:
    what = accelerator or "GPU of no known type"
    if needs.share:
        return f"{part(needs.share)} of {what} free"
    return f"a free {what}" if needs.gpus == 1 else f"{needs.gpus} free {what}"


def _duration(time_ns: float) -> str:
    """Rounded up to a unit that says enough."""
    minutes = -int(-time_ns // 60_000_000_000)
    if minutes < 120:
        return f"{minutes} min"
    hours = -(-minutes // 60)
    return f"{hours} h" if hours < 48 else f"{-(-hours // 24)} days"
