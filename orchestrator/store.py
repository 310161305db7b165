"""Decisions, in SQLite: which jobs there are, what state they are in and why, and what happened to them.

One file, write-ahead logged, so that a reader (``wattledger status``) never waits for the controller. Every change of
state goes through the table of ``lifecycle`` and leaves an event; measurements are not here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lifecycle import AttemptRecord, JobRecord, JobState, check_transition
from workers.contract import JobSpec
from workers.errors import InputError, UnknownNameError

SCHEMA_VERSION = 1
_SCHEMA = """
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
"""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One submission.

    Attributes:
        manifest: the manifest's text, as submitted.
        host: where its controller runs, ``pid`` as what process.
    """

    run_id: str
    name: str
    manifest: str
    submitted_ns: int
    host: str
    pid: int


class Store:
    """The decisions of one ledger. One connection, for one thread; several processes may each have their own.

    Raises:
        InputError: the file is no ledger of ours, or a newer version's, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate(path)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{path} cannot be used as a ledger: {error}. Name another WATTLEDGER_HOME.") from error

    def _migrate(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{path} was written by a newer Wattledger (schema {version}; this one reads {SCHEMA_VERSION}). "
                "Upgrade, or name another WATTLEDGER_HOME."
            )
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def submit(self, run: RunRecord, specs: Sequence[JobSpec]) -> None:
        """Add a run and its jobs, all or none. Jobs that are there already stay as they are.

        Raises:
            InputError: the disk refuses; nothing was submitted.
        """
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
                (run.run_id, run.name, run.manifest, run.submitted_ns, run.host, run.pid),
            )
            for sequence, spec in enumerate(specs):
                added = self._db.execute(
                    "INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, NULL, ?)",
                    (spec.job_id, run.run_id, sequence, spec.to_json(), JobState.QUEUED, run.submitted_ns),
                )
                if added.rowcount:
                    self._event(spec.job_id, run.submitted_ns, f"submitted with {run.run_id}")

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, the latest first."""
        rows = self._db.execute(
            "SELECT run_id, name, manifest, submitted_ns, host, pid FROM runs ORDER BY submitted_ns DESC, rowid DESC"
        )
        return tuple(
            RunRecord(run_id=a, name=b, manifest=c, submitted_ns=d, host=e, pid=f) for a, b, c, d, e, f in rows
        )

    def jobs(self, *, run_id: str | None = None) -> tuple[JobRecord, ...]:
        """The jobs of one run, or all, in order of submission."""
        attempts: dict[str, list[AttemptRecord]] = {}
        for job_id, *fields in self._db.execute(
            "SELECT job_id, number, state, reason, node, accelerator, started_ns, ended_ns FROM attempts ORDER BY number"
        ):
            attempts.setdefault(job_id, []).append(_attempt(*fields))
        rows = self._db.execute(
            "SELECT spec, run_id, sequence, state, reason, submitted_ns, job_id FROM jobs "
            "WHERE ?1 IS NULL OR run_id = ?1 ORDER BY submitted_ns, run_id, sequence",
            (run_id,),
        )
        return tuple(
            JobRecord(
                spec=JobSpec.from_json(spec),
                run_id=run,
                sequence=sequence,
                state=JobState(state),
                reason=reason,
                submitted_ns=submitted_ns,
                attempts=tuple(attempts.get(job_id, ())),
            )
            for spec, run, sequence, state, reason, submitted_ns, job_id in rows
        )

    def job(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            UnknownNameError: no such job; lists those there are.
        """
        found = {job.job_id: job for job in self.jobs()}
        if job_id not in found:
            raise UnknownNameError("job", job_id, found)
        return found[job_id]

    def start_attempt(self, job_id: str, *, node: str, accelerator: str | None, now_ns: int) -> int:
        """The job runs: record a new attempt on ``node`` and give its number."""
        with self._transaction():
            (last,) = self._db.execute("SELECT max(number) FROM attempts WHERE job_id = ?", (job_id,)).fetchone()
            number = int(last or 0) + 1
            self._db.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, NULL, ?, ?, ?, NULL)",
                (job_id, number, JobState.RUNNING, node, accelerator, now_ns),
            )
            self._move(job_id, JobState.RUNNING, None, now_ns)
            return number

    def end_attempt(
        self, job_id: str, number: int, *, state: JobState, reason: str | None, then: JobState, now_ns: int
    ) -> None:
        """The attempt ended in ``state``; the job goes on to ``then`` (queued again, or the same final state)."""
        with self._transaction():
            self._db.execute(
                "UPDATE attempts SET state = ?, reason = ?, ended_ns = ? WHERE job_id = ? AND number = ?",
                (state, reason, now_ns, job_id, number),
            )
            self._event(job_id, now_ns, f"attempt {number} {state}{': ' + reason if reason else ''}")
            self._move(job_id, then, reason, now_ns)

    def set_state(self, job_id: str, state: JobState, *, reason: str | None, now_ns: int) -> None:
        """Move a job that has no running attempt."""
        with self._transaction():
            self._move(job_id, state, reason, now_ns)

    def events(self, job_id: str) -> tuple[tuple[int, str], ...]:
        """What happened to a job: ``(time_ns, sentence)``, oldest first."""
        rows = self._db.execute("SELECT time_ns, what FROM events WHERE job_id = ? ORDER BY event_id", (job_id,))
        return tuple((int(time_ns), str(what)) for time_ns, what in rows)

    def _move(self, job_id: str, state: JobState, reason: str | None, now_ns: int) -> None:
        (now,) = self._db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        check_transition(job_id, JobState(now), state)
        self._db.execute("UPDATE jobs SET state = ?, reason = ? WHERE job_id = ?", (state, reason, job_id))
        self._event(job_id, now_ns, f"{now} -> {state}{': ' + reason if reason else ''}")

    def _event(self, job_id: str, now_ns: int, what: str) -> None:
        self._db.execute("INSERT INTO events (job_id, time_ns, what) VALUES (?, ?, ?)", (job_id, now_ns, what))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, also when the disk is full."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise InputError(f"the ledger cannot be written: {error}. Free disk space or check its rights.") from error
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _attempt(
    number: int, state: str, reason: str | None, node: str, accelerator: str | None, *times: int | None
) -> AttemptRecord:
    started_ns, ended_ns = times
    assert started_ns is not None
    return AttemptRecord(
        number=number,
        state=JobState(state),
        reason=reason,
        node=node,
        accelerator=accelerator,
        started_ns=started_ns,
        ended_ns=ended_ns,
    )
