"""The views: what ``wattledger sql`` and the roll-ups read, over the tables of ``database`` and the files themselves.

``bookings`` is the heart: every sum of every hour, with whose it is. An account is ``job`` where the store knows the
job, ``idle`` where there is none, and ``unattributed`` where entries name a job that the store does not know; so the
three add up to all there is, whatever is asked.
"""

from __future__ import annotations

ENERGY_FILES, METRIC_FILES = "energy_files", "metric_files"
"""Variables of a connection: the files that ``energy`` and ``metrics`` read."""

WEAKNESS = "['counter', 'integrated', 'modelled', 'replayed', 'simulated']"
"""Methods, best first, as ``workers.contract.Method`` has them."""
ACCOUNTS = ("job", "idle", "unattributed")

_US_PER_HOUR = 3_600_000_000
_KWH = "{}::DOUBLE / 3600000000"
_SPEC = {
    name: f"spec->>'$.{path}'"
    for name, path in {
        "team": "accounting.team",
        "project": "accounting.project",
        "name": "name",
        "kind": "kind",
        "task": "task",
        "model": "model",
        "quantization": "quantization",
        "adapter": "adapter.method",
        "region": "accounting.region",
        "pue": "accounting.pue",
        "intensity": "accounting.intensity",
        "zone": "accounting.zone",
        "signal": "accounting.signal",
    }.items()
}
"""What jobs can be told apart by, out of their specification; null where a manifest does not say."""
SUMS = f"""
    sum(energy_mj) AS energy_mj, {WEAKNESS}[max(list_position({WEAKNESS}, method))] AS method,
    list_sort(list_distinct(flatten(coalesce(list(string_split(quality, ',')) FILTER (WHERE quality <> ''), []))))
        AS quality
"""
"""Of some bookings: their energy, the weakest of their methods, and all of their flags."""
_SUMS = f"{SUMS}, {_KWH.format('sum(energy_mj)')} AS energy_kwh"
_HELD = "make_timestamp(min(start_us)) AS first_entry, make_timestamp(max(end_us)) AS last_entry"

VIEWS = f"""
CREATE VIEW lost AS SELECT DISTINCT node, date FROM books.files WHERE problem IS NOT NULL;
CREATE VIEW damaged AS
    SELECT DISTINCT a.job_id
    FROM books.attempts a
    JOIN books.lost l ON l.date BETWEEN strftime(make_timestamp(a.started_ns // 1000), '%Y-%m-%d')
        AND coalesce(strftime(make_timestamp(a.ended_ns // 1000), '%Y-%m-%d'), '9999-12-31')
    LEFT JOIN (SELECT DISTINCT job_id, node FROM books.hours) h ON h.job_id = a.job_id
    WHERE h.job_id IS NULL OR h.node = l.node;
CREATE VIEW bookings AS
    SELECT
        CASE WHEN h.job_id IS NULL THEN 'idle' WHEN j.job_id IS NULL THEN 'unattributed' ELSE 'job' END AS account,
        make_timestamp(h.hour * {_US_PER_HOUR}) AS hour,
        strftime(make_timestamp(h.hour * {_US_PER_HOUR}), '%Y-%m-%d') AS day,
        h.node, h.device, h.model AS device_model, h.kind AS device_kind, h.job_id, h.attempt, h.phase, h.method,
        h.quality, h.energy_mj, h.witness_mj, h.witnessed_mj, h.start_us, h.end_us, h.held_us, h.share,
        CASE h.kind WHEN 'gpu' THEN h.model ELSE a.accelerator END AS accelerator,
        a.wasted AS attempt_wasted, j.* EXCLUDE (job_id),
        CASE WHEN j.job_id IS NULL THEN l.node IS NOT NULL ELSE d.job_id IS NOT NULL END AS damaged
    FROM books.hours h
    LEFT JOIN (
        SELECT job_id, run_id, state, "user",
            {", ".join(f'{path} AS "{name}"' for name, path in _SPEC.items())} FROM books.jobs
    ) j ON j.job_id = h.job_id
    LEFT JOIN books.attempts a ON a.job_id = h.job_id AND a.attempt = h.attempt
    LEFT JOIN books.lost l ON l.node = h.node AND l.date = strftime(make_timestamp(h.hour * {_US_PER_HOUR}), '%Y-%m-%d')
    LEFT JOIN books.damaged d ON d.job_id = h.job_id;

CREATE VIEW main.energy_by_hour AS
    SELECT hour, node, account, job_id, attempt, phase, device, device_model, device_kind, method, quality,
        energy_mj, {_KWH.format("energy_mj")} AS energy_kwh, witness_mj
    FROM books.bookings;
CREATE VIEW main.phases AS
    SELECT job_id, attempt, phase, {_HELD}, {_SUMS} FROM books.bookings WHERE account = 'job' GROUP BY ALL;
CREATE VIEW main.attempts AS
    SELECT a.job_id, a.attempt, a.state, a.reason, a.node, a.accelerator,
        make_timestamp(a.started_ns // 1000) AS started, make_timestamp(a.ended_ns // 1000) AS ended,
        s.* EXCLUDE (job_id, attempt)
    FROM books.attempts a
    LEFT JOIN (SELECT job_id, attempt, {_SUMS} FROM books.bookings WHERE account = 'job' GROUP BY ALL) s
        ON s.job_id = a.job_id AND s.attempt = a.attempt;
CREATE VIEW main.jobs AS
    SELECT j.job_id, j.run_id, r.name AS run, j.state, j.reason, make_timestamp(j.submitted_ns // 1000) AS submitted,
        j."user",
        {", ".join(f'j.{path} AS "{name}"' for name, path in _SPEC.items())},
        s.* EXCLUDE (job_id) REPLACE (CASE WHEN u.job_id IS NULL THEN wasted_mj END AS wasted_mj), j.spec
    FROM books.jobs j
    LEFT JOIN books.runs r ON r.run_id = j.run_id
    LEFT JOIN (
        SELECT DISTINCT job_id FROM books.attempts ANTI JOIN books.hours USING (job_id, attempt)
        WHERE wasted
    ) u ON u.job_id = j.job_id
    LEFT JOIN (
        SELECT job_id, {_SUMS},
            coalesce(sum(energy_mj) FILTER (WHERE attempt_wasted), 0) AS wasted_mj
        FROM books.bookings WHERE account = 'job' GROUP BY ALL
    ) s ON s.job_id = j.job_id;
CREATE VIEW main.runs AS SELECT run_id, name, host, make_timestamp(submitted_ns // 1000) AS submitted FROM books.runs;
CREATE VIEW main.files AS SELECT path, node, date, bytes, problem FROM books.files;
"""
"""Made with the tables. ``main`` is what people see; the rest is in the schema ``books``."""

_LOGS = "union_by_name = true, hive_partitioning = true, hive_types_autocast = false"
FILE_VIEWS = {
    ENERGY_FILES: f"""
        CREATE TEMP VIEW energy AS
        SELECT node, "start" AT TIME ZONE 'UTC' AS "start", "end" AT TIME ZONE 'UTC' AS "end", device, model, kind,
            energy_mj, {_KWH.format("energy_mj")} AS energy_kwh, job_id, attempt, phase, share, method, quality
        FROM read_parquet(getvariable('{ENERGY_FILES}'), {_LOGS})
    """,
    METRIC_FILES: f"""
        CREATE TEMP VIEW metrics AS
        SELECT job_id, attempt::INTEGER AS attempt, ts AT TIME ZONE 'UTC' AS ts, rank, phase, step, name, value
        FROM read_parquet(getvariable('{METRIC_FILES}'), {_LOGS})
    """,
}
"""Views over the entries themselves: by the variable that names their files, which must not be empty."""
