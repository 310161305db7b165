"""A job's energy by node and day, so that roll-ups by either add up to the whole; and what was nobody's."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import parts_of, sum_of
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.unknown import Unknown
from orchestrator.books.views import SUMS
from orchestrator.carbon.hourly import NS_PER_HOUR
from workers.contract import EnergyEntry, Method, Quality
from workers.home import Home
from workers.telemetry.energy_log import utc_date

IDLE, UNATTRIBUTED = "idle", "unattributed"
_NOBODYS = f"""
SELECT CASE WHEN job_id IS NULL THEN '{IDLE}' ELSE '{UNATTRIBUTED}' END AS whose, node, day, {SUMS}
FROM bookings WHERE job_id IS NULL OR job_id NOT IN (SELECT unnest(?::VARCHAR[]))
GROUP BY whose, node, day ORDER BY whose, node, day
"""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Energy of one account on one node and day.

    Attributes:
        node: ``None`` where no node's log has it (recovered from Prometheus, or assumed by the manifest).
        day: UTC date; an entry over midnight is in both days, cut as the roll-ups of the whole ledger cut it.
        wasted: of an attempt that came to nothing.
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
    wasted = evidence.wasted
    groups: dict[tuple[str | None, str, bool], list[EnergyEntry]] = {}
    for entry in evidence.entries:
        node = evidence.node_of.get(entry.device)
        for part in _by_day(entry):
            groups.setdefault((node, utc_date(part.start_ns), part.attempt in wasted), []).append(part)
    return tuple(_slice(key, entries, basis) for key, entries in groups.items())


def _by_day(entry: EnergyEntry) -> Sequence[EnergyEntry]:
    """The entry, or its parts by hour where it goes over midnight: the books cut at hours, to the same millijoule."""
    if utc_date(entry.start_ns) == utc_date(max(entry.start_ns, entry.end_ns - 1)):
        return [entry]
    first = entry.start_ns - entry.start_ns % NS_PER_HOUR + NS_PER_HOUR
    edges = [entry.start_ns, *range(first, entry.end_ns, NS_PER_HOUR), entry.end_ns]
    return parts_of(entry, list(itertools.pairwise(edges)))


def nobodys(home: Home, known_jobs: Collection[str]) -> dict[str, tuple[Slice, ...]]:
    """What no job of the ledger drew, by account: ``idle``, and ``unattributed`` (a job the ledger does not know).

    Carbon is not said of it: no manifest names its region.

    Raises:
        UnreachableError: another process holds the derived database.
    """
    # Imported here: loading duckdb takes a tenth of a second that a report of few jobs should not pay.
    from orchestrator.books.database import open_books  # noqa: PLC0415
    from orchestrator.books.refresh import refresh  # noqa: PLC0415

    with open_books(home) as books:
        refresh(books)
        found = books.rows(_NOBODYS, [sorted(known_jobs)])
    slices: dict[str, list[Slice]] = {IDLE: [], UNATTRIBUTED: []}
    for account, node, day, energy_mj, method, flags in found:
        slices[account].append(
            Slice(
                node=node,
                day=day,
                wasted=False,
                energy_mj=int(energy_mj),
                co2e_g=None,
                method=Method(method),
                quality=frozenset(Quality(flag) for flag in flags),
            )
        )
    return {account: tuple(own) for account, own in slices.items()}


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
