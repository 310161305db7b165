"""A job's energy by node and day, so that roll-ups by either add up to the whole; and what was nobody's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import sum_of
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.unknown import Unknown
from orchestrator.lifecycle import JobState
from workers.contract import EnergyEntry, Method, Quality
from workers.home import Home
from workers.telemetry.energy_log import read_energy_logs, utc_date

IDLE, UNATTRIBUTED = "idle", "unattributed"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Energy of one account on one node and day.

    Attributes:
        node: ``None`` where no node's log has it (recovered from Prometheus, or assumed by the manifest).
        day: UTC date on which its entries start.
        wasted: of an attempt that failed.
        co2e_g: ``None`` where it is not known.
    """

    node: str | None
    day: str
    wasted: bool
    energy_mj: int
    co2e_g: float | None
    method: Method
    quality: frozenset[Quality]


def slices_of(evidence: Evidence, basis: CarbonBasis | Unknown) -> tuple[Slice, ...]:
    """A job's slices; their energies add up to its total exactly."""
    failed = {attempt.number for attempt in evidence.job.attempts if attempt.state is JobState.FAILED}
    groups: dict[tuple[str | None, str, bool], list[EnergyEntry]] = {}
    for entry in evidence.entries:
        node = evidence.node_of.get(entry.device)
        groups.setdefault((node, utc_date(entry.start_ns), entry.attempt in failed), []).append(entry)
    return tuple(_slice(key, entries, basis) for key, entries in groups.items())


def nobodys(home: Home, known_jobs: Collection[str]) -> dict[str, tuple[Slice, ...]]:
    """What no job of the ledger drew, by account: ``idle``, and ``unattributed`` (a job the ledger does not know).

    Carbon is not said of it: no manifest names its region.
    """
    read = read_energy_logs(home)
    groups: dict[str, dict[tuple[str | None, str, bool], list[EnergyEntry]]] = {IDLE: {}, UNATTRIBUTED: {}}
    for entry in read.entries:
        if entry.job_id is None or entry.job_id not in known_jobs:
            account = IDLE if entry.job_id is None else UNATTRIBUTED
            key = (read.node_of[entry.device], utc_date(entry.start_ns), False)
            groups[account].setdefault(key, []).append(entry)
    return {
        account: tuple(_slice(key, entries, Unknown("no manifest")) for key, entries in found.items())
        for account, found in groups.items()
    }


def _slice(key: tuple[str | None, str, bool], entries: Sequence[EnergyEntry], basis: CarbonBasis | Unknown) -> Slice:
    node, day, wasted = key
    total = sum_of(entries)
    assert total is not None
    return Slice(
        node=node,
        day=day,
        wasted=wasted,
        energy_mj=total.energy_mj,
        co2e_g=None if isinstance(basis, Unknown) else basis.grams(total.energy_kwh, entries),
        method=total.method,
        quality=total.quality,
    )
