"""Why a job got its place, or none yet: sentences for the person whose job it is. For why never: ``refusals``."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.lifecycle import JobRecord
from orchestrator.scheduling.inventory import Inventory, Shelf, teams
from orchestrator.scheduling.room import Needs, Room
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


def why_later(needs: Needs, inventory: Inventory) -> str:
    """What a job waits for that some nodes could run, but not now."""
    shelves = inventory.capable(needs)
    if needs.nodes > 1:
        return _why_gang_later(needs, shelves)
    for shelf in shelves:
        for _, place in shelf.roomy(needs):
            keeper = place.in_the_way(needs, SOME_DAY) or place.in_the_way(needs, float("inf"))
            return f"waits for {keeper}, which comes first: the room on {place.room.node.name} is kept for it"
    gpus = sum(shelf.node.gpus_total * len(shelf.places) for shelf in shelves)
    if (needs.gpus == 1 or needs.share) and not any(shelf.has_gpu_for(needs) for shelf in shelves):
        return f"waits for {wanted(needs)}: {'the only one is' if gpus == 1 else f'all {gpus} are'} busy"
    return f"waits for {needed(needs)} on one node: {_left(needs, shelves)}"


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


def _why_gang_later(needs: Needs, shelves: Sequence[Shelf]) -> str:
    """Counted on the nodes of the one type that comes nearest."""
    counts = [
        (sum(1 for shelf in team for _ in shelf.roomy(needs)), sum(len(shelf.places) for shelf in team))
        for team in teams(shelves).values()
    ]
    ready, there = max(counts)
    room = f"{ready} of {there} {'has' if ready == 1 else 'have'} room now"
    if ready >= needs.nodes:
        room += ", some of it kept for jobs that come first"
    return f"waits for {needed(needs)} on each of {needs.nodes} nodes at once: {room}"


def _left(needs: Needs, shelves: Sequence[Shelf]) -> str:
    """What is free on the nodes that come nearest."""
    rooms: list[Room] = [room for shelf in shelves for room in shelf.emptiest(NAMED)]
    rooms.sort(key=lambda room: (-room.gpus, -room.cpus, room.node.name, room.node.node_id))
    count = sum(len(shelf.places) for shelf in shelves)
    return clauses([f"{room.node.name} has {amount(room, needs)} free" for room in rooms], count)


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
