"""Long entries cut where Prometheus looked: the energy is the log's, and when it was drawn is the counter's. Pure.

The energy log keeps one entry for as long as a phase lasts, ten minutes at most. What was drawn *when* inside it is in
Prometheus' samples: a warm-up left out, a prompt told from its answer, need that. The joules stay the log's, exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from orchestrator.accounting.energy import parts_of
from orchestrator.accounting.samples import CounterCurve
from workers.contract import EnergyEntry

UJ_PER_J = 1_000_000

Curves = Mapping[tuple[int, str], tuple[CounterCurve, int]]
"""Attempt and device to the counter, and what to take off the node's time to have the counter's, ns."""


def shaped(entries: Iterable[EnergyEntry], curves: Curves) -> tuple[EnergyEntry, ...]:
    """The entries, those of devices with a curve cut at its samples; what it does not reach stays as it is."""
    return tuple(part for entry in entries for part in _shaped(entry, curves))


def _shaped(entry: EnergyEntry, curves: Curves) -> list[EnergyEntry]:
    known = None if entry.attempt is None else curves.get((entry.attempt, entry.device))
    if known is None:
        return [entry]
    curve, offset_ns = known
    inside = curve.times(entry.start_ns - offset_ns, entry.end_ns - offset_ns)
    pieces = list(itertools.pairwise([entry.start_ns, *(time_ns + offset_ns for time_ns in inside), entry.end_ns]))
    grown_j = [curve.between(start_ns - offset_ns, end_ns - offset_ns) for start_ns, end_ns in pieces]
    weights = [round(part_j * UJ_PER_J) for part_j in grown_j if part_j is not None]
    if len(weights) < len(pieces) or not any(weights):
        return [entry]
    return parts_of(entry, pieces, weights)
