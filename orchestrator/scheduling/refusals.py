"""Why a job can never run on a cluster, and the nearest that could: sentences for the person whose job it is."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.scheduling.inventory import Inventory, Shelf, suits, teams
from orchestrator.scheduling.room import UNITS, Needs, whole_room
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.scheduling.wording import NAMED, amount, clauses, inventory_of, joined, needed, several, wanted


def why_never(needs: Needs, cluster: ClusterView, inventory: Inventory) -> str:
    """Why no nodes that answer could run the job even if they were empty, and what could run instead."""
    if not inventory.shelves:
        return f"no node of the cluster answers{_hope(needs, cluster)}"
    anywhere = needs._replace(labels=())
    of_kind = [shelf for shelf in inventory.shelves if suits(anywhere, shelf.node)]
    if not of_kind:
        return f"no node has {wanted(needs)}; this cluster has: {inventory_of(cluster)}{_hope(needs, cluster)}"
    suitable = [shelf for shelf in of_kind if suits(needs, shelf.node)]
    if not suitable:
        return f"{_unlabelled(needs, of_kind)}{_hope(needs, cluster)}"
    if needs.gpus > max(shelf.node.gpus_total for shelf in suitable):
        return f"{_too_many_gpus(needs, suitable)}{_hope(needs, cluster)}"
    large = [shelf for shelf in suitable if shelf.whole.fits(needs)]
    if not large:
        return f"{_too_large(needs, suitable)}{_hope(needs, cluster)}"
    return f"{_too_many_nodes(needs, large)}{_hope(needs, cluster)}"


def _hope(needs: Needs, cluster: ClusterView) -> str:
    absent = [node for node in cluster.absent if suits(needs, node) and whole_room(node).fits(needs)]
    named = " or ".join(node.name for node in absent[:NAMED])
    return f"; {named} could run it but does not answer" if absent else ""


def _unlabelled(needs: Needs, of_kind: Sequence[Shelf]) -> str:
    asked = joined([f"{key}={value}" for key, value in needs.labels])
    nodes = [place.room.node for shelf in of_kind for place in shelf.places]
    there = sorted({f"{key}={node.labels[key]}" for key, _ in needs.labels for node in nodes if key in node.labels})
    has = f"there is {joined(there[:NAMED])}" if there else "none is labelled so at all"
    kind = f" with {wanted(needs)}" if needs.any_gpu else ""
    return f"no node{kind} has the label{'s' if len(needs.labels) > 1 else ''} {asked}; {has}"


def _too_many_gpus(needs: Needs, suitable: Sequence[Shelf]) -> str:
    most = max(shelf.node.gpus_total for shelf in suitable)
    remedies = [f"set resources.gpus to {most}"]
    nodes = needs.nodes * -(-needs.gpus // most)
    split = needs._replace(gpus=most, nodes=nodes)
    if needs.gpus % most == 0 and _largest_team([s for s in suitable if s.whole.fits(split)]) >= nodes:
        remedies.append(f"and resources.nodes to {nodes} for as many in all")
    return f"no node has {several(needs)}; the nearest is {most} on one node: {', '.join(remedies)}"


def _too_large(needs: Needs, suitable: Sequence[Shelf]) -> str:
    rooms = sorted(
        (whole_room(place.room.node) for shelf in suitable for place in shelf.places[:NAMED]),
        key=lambda room: (room.node.name, room.node.node_id),
    )
    sizes = clauses([f"{r.node.name} has {amount(r, needs)}" for r in rooms], sum(len(s.places) for s in suitable))
    return f"no node is large enough: the job needs {needed(needs)}, and {sizes}{_nearest(needs, suitable)}"


def _nearest(needs: Needs, suitable: Sequence[Shelf]) -> str:
    """The one figure that stands in the way, and the most it could be; nothing where several do."""
    cpus = max((s.whole.cpus for s in suitable if s.whole.fits(needs._replace(cpus=0))), default=0)
    if cpus:
        return f"; the nearest possible: set resources.cpus to {cpus / UNITS:g}"
    memory = max((s.whole.memory or 0 for s in suitable if s.whole.fits(needs._replace(memory=None))), default=0)
    return f"; the nearest possible: set resources.memory_gb to {memory / UNITS:g}" if memory else ""


def _too_many_nodes(needs: Needs, large: Sequence[Shelf]) -> str:
    most = _largest_team(large)
    there = f"there {'is' if most == 1 else 'are'} {most} of one accelerator type"
    return f"the job needs {needs.nodes} nodes with {needed(needs)} each, and {there}: set resources.nodes to {most}"


def _largest_team(shelves: Sequence[Shelf]) -> int:
    return max((sum(len(shelf.places) for shelf in team) for team in teams(shelves).values()), default=0)
