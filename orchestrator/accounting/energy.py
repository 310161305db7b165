"""Sums over energy entries: exact in integer millijoules, as sure as their weakest part. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.accounting.phases import PhaseSpan
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.units import NS_PER_S, apportion, mj_to_joules, mj_to_kwh


@dataclass(frozen=True, kw_only=True)
class EnergySum:
    """Energy of one or more entries.

    Attributes:
        method: the weakest among them.
        quality: every flag any of them carries.
    """

    energy_mj: int
    method: Method
    quality: frozenset[Quality]

    @property
    def energy_kwh(self) -> float:
        """In kilowatt-hours."""
        return mj_to_kwh(self.energy_mj)

    @property
    def energy_j(self) -> float:
        """In joules."""
        return mj_to_joules(self.energy_mj)


Piece = tuple[int, int, float]
"""Start and end, ns since the epoch, and the share of the device over that time, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class DeviceWindow:
    """The time one attempt held one device, as its entries show it, and what they add up to.

    Attributes:
        shared: someone else held the device too for some of the time, so its counter shows more than the entries.
        pieces: the same time as ``(start ns, end ns, share of the device)``, in order; empty where that is not known.
    """

    attempt: int
    device: str
    start_ns: int
    end_ns: int
    energy_mj: int
    shared: bool
    pieces: tuple[Piece, ...] = ()


def sum_of(entries: Iterable[EnergyEntry]) -> EnergySum | None:
    """The entries' total; ``None`` when there are none, which is not the same as 0 J."""
    parts = list(entries)
    if not parts:
        return None
    return EnergySum(
        energy_mj=sum(part.energy_mj for part in parts),
        method=max((part.method for part in parts), key=lambda method: method.weakness),
        quality=frozenset().union(*(part.quality for part in parts)),
    )


def by_phase(entries: Sequence[EnergyEntry]) -> dict[Phase, EnergySum]:
    """Totals per phase, in the order of phases; what was drawn outside any phase is in none of them."""
    sums = {phase: sum_of(entry for entry in entries if entry.phase is phase) for phase in Phase}
    return {phase: total for phase, total in sums.items() if total is not None}


def windows(entries: Iterable[EnergyEntry]) -> tuple[DeviceWindow, ...]:
    """One window per attempt and device of one job, from its first entry's start to its last entry's end."""
    held: dict[tuple[int, str], list[EnergyEntry]] = {}
    for entry in entries:
        if entry.attempt is not None:
            held.setdefault((entry.attempt, entry.device), []).append(entry)
    return tuple(
        DeviceWindow(
            attempt=attempt,
            device=device,
            start_ns=min(entry.start_ns for entry in parts),
            end_ns=max(entry.end_ns for entry in parts),
            energy_mj=sum(entry.energy_mj for entry in parts),
            shared=any(entry.share < 1 or Quality.SHARED in entry.quality for entry in parts),
            pieces=_pieces(parts),
        )
        for (attempt, device), parts in sorted(held.items())
    )


def _pieces(entries: Iterable[EnergyEntry]) -> tuple[Piece, ...]:
    """The times of one device's entries, neighbours of one share joined."""
    joined: list[Piece] = []
    for entry in sorted(entries, key=lambda entry: (entry.start_ns, entry.end_ns)):
        if joined and joined[-1][1] == entry.start_ns and joined[-1][2] == entry.share:
            joined[-1] = (joined[-1][0], entry.end_ns, entry.share)
        else:
            joined.append((entry.start_ns, entry.end_ns, entry.share))
    return tuple(joined)


def held_s(held: Iterable[DeviceWindow]) -> float:
    """Seconds over which the attempts held devices: each attempt counts once, however many devices it held."""
    by_attempt: dict[int, list[DeviceWindow]] = {}
    for window in held:
        by_attempt.setdefault(window.attempt, []).append(window)
    lasted_ns = [
        max(window.end_ns for window in parts) - min(window.start_ns for window in parts)
        for parts in by_attempt.values()
    ]
    return sum(lasted_ns) / NS_PER_S


def in_phases(entries: Sequence[EnergyEntry], spans: Sequence[PhaseSpan]) -> tuple[EnergyEntry, ...]:
    """The entries of one attempt with their phases.

    The agent books each phase apart while it hears of them, and then the entries stand as they are. Where it never
    did (every entry is without a phase), they are cut at the phases' edges in the metric log, as if power had been even
    over each entry; what lands in a phase so is flagged ``fallback``. Energy is conserved to the millijoule.
    """
    if any(entry.phase is not None for entry in entries):
        return tuple(entries)
    return tuple(part for entry in entries for part in _cut(entry, spans))


def _cut(entry: EnergyEntry, spans: Sequence[PhaseSpan]) -> list[EnergyEntry]:
    inside = {entry.start_ns, entry.end_ns}
    for span in spans:
        inside.update(edge for edge in (span.start_ns, span.end_ns) if entry.start_ns < edge < entry.end_ns)
    edges = sorted(inside)
    if len(edges) < 2:
        return [entry]
    pieces = list(itertools.pairwise(edges))
    return [_piece(part, spans) for part in parts_of(entry, pieces)]


def parts_of(
    entry: EnergyEntry, pieces: Sequence[tuple[int, int]], weights: Sequence[int] | None = None
) -> list[EnergyEntry]:
    """The entry over each of the spans that make it up: energy is conserved exactly.

    Args:
        entry: what is cut.
        pieces: start and end of each span, ns.
        weights: what was drawn in each, in any unit; ``None``: as if power had been even.
    """
    parts = [end - start for start, end in pieces] if weights is None else weights
    energies_mj = apportion(entry.energy_mj, parts)
    witnesses_mj: Sequence[int | None] = [None] * len(pieces)
    if entry.witness_mj is not None:
        witnesses_mj = apportion(entry.witness_mj, parts)
    return [
        replace(entry, start_ns=start_ns, end_ns=end_ns, energy_mj=energy_mj, witness_mj=witness_mj)
        for (start_ns, end_ns), energy_mj, witness_mj in zip(pieces, energies_mj, witnesses_mj, strict=True)
    ]


def within(entries: Iterable[EnergyEntry], spans: Sequence[tuple[int, int]]) -> tuple[EnergyEntry, ...]:
    """The parts of ``entries`` that lie in ``spans``, which do not overlap; an entry across an edge is cut there.

    What is cut is flagged ``fallback``: power inside one entry is not known, and taken to be even.
    """
    found: list[EnergyEntry] = []
    for entry in entries:
        inside = [(max(start, entry.start_ns), min(end, entry.end_ns)) for start, end in spans]
        kept = sorted((start, end) for start, end in inside if start < end)
        if kept == [(entry.start_ns, entry.end_ns)]:
            found.append(entry)
        elif kept:
            edges = sorted({entry.start_ns, entry.end_ns, *itertools.chain.from_iterable(kept)})
            parts = parts_of(entry, list(itertools.pairwise(edges)))
            found += [
                replace(part, quality=part.quality | {Quality.FALLBACK})
                for part in parts
                if any(start <= part.start_ns and part.end_ns <= end for start, end in kept)
            ]
    return tuple(found)


def _piece(entry: EnergyEntry, spans: Sequence[PhaseSpan]) -> EnergyEntry:
    inside = (span.phase for span in spans if span.start_ns <= entry.start_ns and entry.end_ns <= span.end_ns)
    phase = next(inside, None)
    quality = entry.quality if phase is None else entry.quality | {Quality.FALLBACK}
    return replace(entry, phase=phase, quality=quality)
