"""Entries that touch and are of one account become one: fewer rows, and the same joules. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from workers.contract import EnergyEntry


def merge(entries: Sequence[EnergyEntry]) -> list[EnergyEntry]:
    """Join touching entries of one device, account, share, method and quality; energy and ends are kept exactly.

    Entries of one device and account come in order of time.
    """
    merged: dict[tuple[object, ...], EnergyEntry] = {}
    done: list[EnergyEntry] = []
    for entry in entries:
        account = (entry.device, entry.kind, entry.job_id, entry.attempt, entry.phase)
        key = (*account, entry.method, entry.quality, entry.witness_mj is None)
        before = merged.get(key)
        if before is not None and before.end_ns == entry.start_ns and before.share == entry.share:
            merged[key] = _joined(before, entry)
            continue
        if before is not None:
            done.append(before)
        merged[key] = entry
    return sorted([*done, *merged.values()], key=lambda entry: (entry.start_ns, entry.end_ns, entry.job_id or ""))


def _joined(before: EnergyEntry, entry: EnergyEntry) -> EnergyEntry:
    """Two neighbours as one; either both have a witness or neither has."""
    witness_mj = None if entry.witness_mj is None else (before.witness_mj or 0) + entry.witness_mj
    return EnergyEntry(
        start_ns=before.start_ns,
        end_ns=entry.end_ns,
        device=before.device,
        model=before.model,
        kind=before.kind,
        energy_mj=before.energy_mj + entry.energy_mj,
        job_id=before.job_id,
        attempt=before.attempt,
        phase=before.phase,
        share=before.share,
        method=before.method,
        quality=before.quality,
        witness_mj=witness_mj,
    )
