"""The entries of many jobs, neighbours joined within each hour: few enough to hold for thousands of jobs.

What a row is computed from is the same: sums, methods and flags, first and last moments, holes, energy by hour. Most
hours of a job are one stretch of one account, and come from the sums; where there are holes, shares or a witness of
only some entries, that hour is read again, and its entries are joined where they touch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.books.database import Books
from orchestrator.books.summary import PIECES
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.units import NS_PER_US

_KEYS = "job_id, attempt, node, device, model, kind, phase, method, quality, hour"
_SUMS = f"""
CREATE OR REPLACE TEMP TABLE job_hours AS
SELECT {_KEYS}, sum(energy_mj) AS energy_mj, sum(witness_mj) AS witness_mj,
    min(start_us) AS start_us, max(end_us) AS end_us, min(share) AS share,
    sum(held_us) = max(end_us) - min(start_us) AND min(share) = 1
        AND coalesce(sum(witnessed_mj), 0) IN (0, sum(energy_mj)) AS is_whole
FROM hours SEMI JOIN wanted USING (job_id)
WHERE file_id >= 0
GROUP BY ALL
"""
_LOOSE = """
CREATE OR REPLACE TEMP TABLE loose AS
SELECT DISTINCT job_id, attempt, device, hour FROM job_hours WHERE NOT is_whole
"""
_WHOLE = """
SELECT start_us, end_us, node, device, model, kind, energy_mj, job_id, attempt, phase, share, method, quality,
    witness_mj
FROM job_hours ANTI JOIN loose USING (job_id, attempt, device, hour)
"""
_FILES = """
SELECT DISTINCT path FROM files JOIN hours USING (file_id) SEMI JOIN loose USING (job_id, attempt, device, hour)
"""
_STRETCH = f"{_KEYS}, share, witness_mj IS NULL"
_JOINED = f"""
WITH pieces AS ({PIECES.format(kept="WHERE job_id IN (SELECT job_id FROM loose)")}),
mine AS (
    SELECT pieces.*, node FROM pieces JOIN batch USING (filename) SEMI JOIN loose USING (job_id, attempt, device, hour)
),
marked AS (
    SELECT *, coalesce(lag(end_us) OVER account = start_us, false) AS continues
    FROM mine WINDOW account AS (PARTITION BY {_STRETCH} ORDER BY start_us, end_us, energy_mj)
),
stretches AS (
    SELECT *, sum(CASE WHEN continues THEN 0 ELSE 1 END) OVER account AS stretch
    FROM marked
    WINDOW account AS (PARTITION BY {_STRETCH} ORDER BY start_us, end_us, energy_mj ROWS UNBOUNDED PRECEDING)
)
SELECT min(start_us), max(end_us), node, device, model, kind, sum(energy_mj), job_id, attempt, phase, share, method,
    quality, sum(witness_mj)
FROM stretches GROUP BY {_STRETCH}, stretch
"""
_UNPHASED = """
SELECT DISTINCT job_id FROM (
    SELECT job_id, attempt FROM hours SEMI JOIN wanted USING (job_id)
    GROUP BY ALL HAVING bool_and(phase IS NULL)
)
"""


@dataclass(frozen=True, kw_only=True)
class JoinedEntries:
    """Entries of jobs, joined within each hour.

    Attributes:
        entries: in no order; those of journals are not among them.
        node_of: device to the node that metered it.
        unphased: jobs that are left out, since an attempt of theirs has no phase at all: the metric log may cut its
            entries, which must then be as they were written.
        lost: ``(node, UTC date)`` of which a file could not be read.
    """

    entries: tuple[EnergyEntry, ...]
    node_of: dict[str, str]
    unphased: frozenset[str]
    lost: frozenset[tuple[str, str]]


def joined_entries(books: Books, job_ids: Collection[str]) -> JoinedEntries:
    """The entries of ``job_ids`` in books that are up to date."""
    books.rows("CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS job_id", [sorted(job_ids)])
    unphased = frozenset(job_id for (job_id,) in books.rows(_UNPHASED))
    books.rows("DELETE FROM wanted WHERE job_id IN (SELECT unnest(?::VARCHAR[]))", [sorted(unphased)])
    books.rows(_SUMS)
    books.rows(_LOOSE)
    rows = books.rows(_WHOLE)
    files = [path for (path,) in books.rows(_FILES)]
    if files:
        paths = [str(books.home.root / path) for path in files]
        books.rows(
            "CREATE OR REPLACE TEMP TABLE batch AS SELECT node, filename FROM files "
            "JOIN (SELECT unnest(?) AS path, unnest(?) AS filename) USING (path)",
            [files, paths],
        )
        rows += books.rows(_JOINED, [paths])
    return JoinedEntries(
        entries=tuple(_entry(row) for row in rows),
        node_of={row[3]: row[2] for row in rows},
        unphased=unphased,
        lost=frozenset(books.rows("SELECT node, date FROM lost WHERE node IS NOT NULL AND date IS NOT NULL")),
    )


def _entry(row: Iterable[Any]) -> EnergyEntry:
    start_us, end_us, _, device, model, kind, energy_mj, job_id, attempt, phase, share, method, flags, witness_mj = row
    return EnergyEntry(
        start_ns=start_us * NS_PER_US,
        end_ns=end_us * NS_PER_US,
        device=device,
        model=model,
        kind=kind,
        energy_mj=int(energy_mj),
        job_id=job_id,
        attempt=attempt,
        phase=None if phase is None else _PHASES[phase],
        share=share,
        method=_METHODS[method],
        quality=_flags(flags),
        witness_mj=None if witness_mj is None else int(witness_mj),
    )


_PHASES = {phase.value: phase for phase in Phase}
_METHODS = {method.value: method for method in Method}


def _flags(text: str) -> frozenset[Quality]:
    return frozenset(map(Quality, text.split(","))) if text else frozenset()
