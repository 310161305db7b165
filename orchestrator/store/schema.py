"""The tables of ``state.db``, and how an older file becomes one of this version."""

from __future__ import annotations

SCHEMA_VERSION = 3
MIGRATIONS = {
    0: """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, manifest TEXT NOT NULL, submitted_ns INTEGER NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL
);
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs, sequence INTEGER NOT NULL, spec TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT, submitted_ns INTEGER NOT NULL
);
CREATE TABLE attempts (
    job_id TEXT NOT NULL REFERENCES jobs, number INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT,
    node TEXT NOT NULL, accelerator TEXT, started_ns INTEGER NOT NULL, ended_ns INTEGER,
    PRIMARY KEY (job_id, number)
);
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY, job_id TEXT NOT NULL REFERENCES jobs, time_ns INTEGER NOT NULL, what TEXT NOT NULL
);
CREATE INDEX jobs_by_run ON jobs (run_id, sequence);
CREATE INDEX events_by_job ON events (job_id, event_id);
""",
    1: """
ALTER TABLE runs ADD COLUMN user TEXT;
CREATE TABLE budgets (
    scope TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL, energy_kwh REAL, co2e_kg REAL,
    set_ns INTEGER NOT NULL, PRIMARY KEY (scope, name, period)
);
""",
    2: """
ALTER TABLE runs ADD COLUMN bound INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN ready_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN stop TEXT;
CREATE TABLE quotas (
    scope TEXT NOT NULL, name TEXT NOT NULL, gpus REAL, queued_jobs INTEGER, set_ns INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
);
CREATE TABLE controllers (
    name TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, address TEXT NOT NULL, targets_url TEXT NOT NULL,
    started_ns INTEGER NOT NULL, beat_ns INTEGER NOT NULL, trouble TEXT, cluster TEXT NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX attempts_by_end ON attempts (ended_ns);
""",
}
"""What makes the next version of a version; a new file goes through all of them, so that the two cannot differ."""
TABLES = frozenset({"runs", "jobs", "attempts", "events"})
"""What every version has had: a database without them is somebody else's."""
