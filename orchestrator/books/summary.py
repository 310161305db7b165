"""How the entries of energy files become sums per hour: one SQL statement, exact in integers.

An entry over the edge of an hour is split as ``workers.units.apportion`` does it: by time, largest remainder, ties to
the earlier part. Tests hold the two against each other.
"""

from __future__ import annotations

US_PER_HOUR = 3_600_000_000
REQUIRED = ("start", "end", "device", "model", "kind", "energy_mj", "share", "method")
"""Columns that have a value in every row of a file of ours: one that lacks any is not read."""
_TYPES = {
    "start": "TIMESTAMPTZ",
    "end": "TIMESTAMPTZ",
    "device": "VARCHAR",
    "model": "VARCHAR",
    "kind": "VARCHAR",
    "energy_mj": "BIGINT",
    "job_id": "VARCHAR",
    "attempt": "INTEGER",
    "phase": "VARCHAR",
    "share": "DOUBLE",
    "method": "VARCHAR",
    "quality": "VARCHAR[]",
    "witness_mj": "BIGINT",
    "filename": "VARCHAR",
}
"""Columns of the energy log as DuckDB reads them. ``witness_mj`` may be absent: files of older agents lack it."""
COLUMNS = tuple(name for name in _TYPES if name != "filename")

READ_ENERGY = f"""
    SELECT {", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _TYPES.items())} WHERE false
    UNION ALL BY NAME
    SELECT * FROM read_parquet(?, filename = true, union_by_name = true, hive_partitioning = false)
"""
"""Every entry of the files given, with the columns of ``_TYPES`` whether or not the files have them all."""

_KEYS = "filename, device, model, kind, job_id, attempt, phase, method, quality"
_HOUR_START, _HOUR_END = f"hour * {US_PER_HOUR}", f"(hour + 1) * {US_PER_HOUR}"


def _part_mj(total: str) -> str:
    """An hour's part of ``total``: the floor, and one more for the parts with the largest remainders."""
    product = f"{total}::HUGEINT * part_us"
    order = f"PARTITION BY entry ORDER BY ({product}) % whole_us DESC, hour"
    left = f"{total} - sum(({product}) // whole_us) OVER (PARTITION BY entry)"
    return f"({product}) // whole_us + CASE WHEN row_number() OVER ({order}) <= {left} THEN 1 ELSE 0 END"


_ENTRIES = f"""
entries AS (
    SELECT
        filename, device, model, kind, job_id, attempt, phase, method, array_to_string(quality, ',') AS quality,
        epoch_us("start") AS start_us, epoch_us("end") AS end_us, share, witness_mj,
        CASE WHEN {" OR ".join(f'"{name}" IS NULL' for name in REQUIRED)}
            THEN error('a row without a value in a column that every entry has') ELSE energy_mj END AS energy_mj,
        start_us // {US_PER_HOUR} AS hour, end_us > {_HOUR_END} AS straddles
    FROM ({READ_ENERGY})
)
"""
_CUT = f"""
cut AS (
    SELECT {_KEYS}, share, entry, start_us, end_us, energy_mj, witness_mj, hour,
        least(end_us, {_HOUR_END}) - greatest(start_us, {_HOUR_START}) AS part_us, end_us - start_us AS whole_us
    FROM (
        SELECT * EXCLUDE (hour), unnest(range(start_us // {US_PER_HOUR}, (end_us - 1) // {US_PER_HOUR} + 1)) AS hour
        FROM (SELECT *, row_number() OVER () AS entry FROM straddling)
    )
),
parts AS (
    SELECT {_KEYS}, hour, share, {_part_mj("energy_mj")} AS energy_mj, {_part_mj("witness_mj")} AS witness_mj,
        CASE WHEN witness_mj IS NOT NULL THEN {_part_mj("energy_mj")} END AS witnessed_mj,
        greatest(start_us, {_HOUR_START}) AS start_us, least(end_us, {_HOUR_END}) AS end_us, part_us AS held_us
    FROM cut
)
"""
"""Entries that go over the edge of an hour, from ``straddling``: their ``parts`` in each."""

SUMMARISE = f"""
INSERT INTO hours
WITH {_ENTRIES},
sums AS (  -- one scan: what lies in one hour is added up, and the few entries that do not are kept as they are
    SELECT {_KEYS}, hour,
        sum(energy_mj) FILTER (WHERE NOT straddles) AS energy_mj,
        sum(witness_mj) FILTER (WHERE NOT straddles) AS witness_mj,
        sum(energy_mj) FILTER (WHERE NOT straddles AND witness_mj IS NOT NULL) AS witnessed_mj,
        min(start_us) FILTER (WHERE NOT straddles) AS start_us, max(end_us) FILTER (WHERE NOT straddles) AS end_us,
        sum(end_us - start_us) FILTER (WHERE NOT straddles) AS held_us, min(share) AS share,
        list({{'start_us': start_us, 'end_us': end_us, 'energy_mj': energy_mj, 'witness_mj': witness_mj,
            'part': share}})
            FILTER (WHERE straddles) AS aside
    FROM entries
    GROUP BY ALL
),
straddling AS (
    SELECT * EXCLUDE (part), part AS share FROM (
        SELECT {_KEYS}, hour, unnest(aside, recursive := true) FROM sums WHERE aside IS NOT NULL
    )
),
{_CUT},
pieces AS (
    SELECT * EXCLUDE (aside) FROM sums WHERE energy_mj IS NOT NULL
    UNION ALL BY NAME
    SELECT * FROM parts
)
SELECT file_id, node, hour, device, model, kind, job_id, attempt, phase, method, quality, sum(energy_mj),
    sum(witness_mj), sum(witnessed_mj), min(start_us), max(end_us), sum(held_us), min(share)
FROM pieces JOIN batch USING (filename)
GROUP BY ALL
"""
"""Adds the sums of the files of the table ``batch`` (file_id, node, filename); its one parameter is their list."""

PIECES = f"""
WITH {_ENTRIES},
straddling AS (SELECT * FROM entries {{kept}} AND straddles),
{_CUT},
pieces AS (
    SELECT {_KEYS}, hour, share, energy_mj, witness_mj, start_us, end_us FROM entries {{kept}} AND NOT straddles
    UNION ALL BY NAME
    SELECT * EXCLUDE (witnessed_mj, held_us) FROM parts
)
SELECT * FROM pieces
"""
"""The entries themselves, those over the edge of an hour in parts; ``kept`` says which. Its parameter: the files."""
