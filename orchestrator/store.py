"""Decisions, in SQLite: which jobs there are, what state they are in and why, and what happened to them.

One file, write-ahead logged, so that a reader (``wattledger status``) never waits for the controller. Every change of
state goes through the table of ``lifecycle`` and leaves an event; measurements are not here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.lifecycle import AttemptRecord, IllegalTransitionError, JobRecord, JobState, check_transition
from workers.contract import JobSpec
from workers.errors import InputError, UnknownNameError

SCHEMA_VERSION = 3
_MIGRATIONS = {
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
_TABLES = frozenset({"runs", "jobs", "attempts", "events"})


Row = tuple[Any, ...]
"""A row of SQLite, columns as in the schema."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One submission.

    Attributes:
        manifest: the manifest's text, as submitted.
        host: where its controller runs, ``pid`` as what process.
        user: who submitted it; ``None`` in runs from before it was noted.
    """

    run_id: str
    name: str
    manifest: str
    submitted_ns: int
    host: str
    pid: int
    user: str | None = None


BudgetScope = Literal["user", "team", "project", "job"]
BudgetPeriod = Literal["day", "week", "month", "total"]


@dataclass(frozen=True, kw_only=True)
class BudgetRecord:
    """What somebody may use in a period.

    Attributes:
        name: of the user, team, project or job.
        period: ``day``, ``week`` (from Monday) or ``month``, by UTC; or ``total``.
        energy_kwh: IT energy, kWh; ``co2e_kg``: operational, PUE included. ``None`` is no limit.
    """

    scope: BudgetScope
    name: str
    period: BudgetPeriod
    energy_kwh: float | None
    co2e_kg: float | None
    set_ns: int


class Store:
    """The decisions of one ledger. One connection, for one thread; several processes may each have their own.

    Raises:
        InputError: the file is no ledger of ours, or a newer version's, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._specs: dict[str, JobSpec] = {}  # a job's spec never changes, and reading one costs more than its row
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = stack.enter_context(
                    contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None))
                )
                self._prepare(path)
            except (sqlite3.Error, OSError) as error:
                raise InputError(
                    f"{path} cannot be used as a ledger: {error}. Name another folder with --home or WATTLEDGER_HOME."
                ) from error
            stack.pop_all()

    def _prepare(self, path: Path) -> None:
        # Two that open a new ledger at once may be in each other's way here. The mode stays with the file, so that
        # one of them, or whoever opens it next, is enough.
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA foreign_keys=ON")
        if self._version(path) < SCHEMA_VERSION:
            with self._transaction():
                # Asked again: somebody else may have made it in the meantime.
                for version in range(self._version(path), SCHEMA_VERSION):
                    for statement in _MIGRATIONS[version].split(";"):
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _version(self, path: Path) -> int:
        """The file's schema, which this version reads; 0 when there is nothing in it yet."""
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables >= _TABLES:
            raise InputError(
                f"{path} is a database, but no ledger. Name another folder with --home or WATTLEDGER_HOME."
            )
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{path} was written by a newer Wattledger (schema {version}; this one reads {SCHEMA_VERSION}). "
                "Upgrade, or name another folder with --home or WATTLEDGER_HOME."
            )
        return version

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def submit(self, run: RunRecord, specs: Sequence[JobSpec]) -> int:
        """Add a run and its jobs, all or none; gives how many were new. Jobs that are there already stay as they are.

        A run of which no job is new is not added.

        Raises:
            InputError: the disk refuses; nothing was submitted.
        """
        with self._transaction():
            known = {spec.job_id for spec in specs if self._find_state(spec.job_id) is not None}
            if len(known) < len(specs):
                self._db.execute(
                    "INSERT INTO runs (run_id, name, manifest, submitted_ns, host, pid, user) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING",
                    (run.run_id, run.name, run.manifest, run.submitted_ns, run.host, run.pid, run.user),
                )
            for sequence, spec in enumerate(specs):
                if spec.job_id not in known:
                    self._db.execute(
                        "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL, ?)",
                        (spec.job_id, run.run_id, sequence, spec.to_json(), JobState.QUEUED, run.submitted_ns),
                    )
                    self._event(spec.job_id, run.submitted_ns, f"submitted with {run.run_id}")
            return len(specs) - len(known)

    def runs(self, *, unfinished: bool = False) -> tuple[RunRecord, ...]:
        """All runs, or those with a job that is not in a final state; the latest first."""
        rows = self._rows(
            "SELECT run_id, name, manifest, submitted_ns, host, pid, user FROM runs WHERE NOT ? OR EXISTS "
            "(SELECT * FROM jobs WHERE jobs.run_id = runs.run_id AND state IN (?, ?)) "
            "ORDER BY submitted_ns DESC, rowid DESC",
            (unfinished, JobState.QUEUED, JobState.RUNNING),
        )
        return tuple(
            RunRecord(run_id=a, name=b, manifest=c, submitted_ns=d, host=e, pid=f, user=g)
            for a, b, c, d, e, f, g in rows
        )

    def jobs(self, *, run_id: str | None = None) -> tuple[JobRecord, ...]:
        """The jobs of one run, or all, in order of submission."""
        attempts = self._rows(
            "SELECT attempts.* FROM attempts JOIN jobs USING (job_id) WHERE ?1 IS NULL OR run_id = ?1 ORDER BY number",
            (run_id,),
        )
        rows = self._rows(
            "SELECT * FROM jobs WHERE ?1 IS NULL OR run_id = ?1 ORDER BY submitted_ns, run_id, sequence", (run_id,)
        )
        return self._records(rows, attempts)

    def last_event(self) -> int:
        """The number of the latest event; 0 before the first. Nothing changes without one."""
        return int(self._rows("SELECT coalesce(max(event_id), 0) FROM events")[0][0])

    def jobs_changed(self, *, after_event: int) -> tuple[JobRecord, ...]:
        """The jobs something happened to after that event, as they are now."""
        changed = "(SELECT job_id FROM events WHERE event_id > ?)"
        attempts = self._rows(f"SELECT * FROM attempts WHERE job_id IN {changed} ORDER BY number", (after_event,))  # noqa: S608
        rows = self._rows(f"SELECT * FROM jobs WHERE job_id IN {changed}", (after_event,))  # noqa: S608
        return self._records(rows, attempts)

    def job(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            UnknownNameError: no such job; lists those there are.
        """
        attempts = self._rows("SELECT * FROM attempts WHERE job_id = ? ORDER BY number", (job_id,))
        rows = self._rows("SELECT * FROM jobs WHERE job_id = ?", (job_id,))
        if not rows:
            raise self._unknown(job_id)
        return self._records(rows, attempts)[0]

    def _records(self, rows: Iterable[Row], attempts: Iterable[Row]) -> tuple[JobRecord, ...]:
        users: dict[str, str | None] = dict(self._rows("SELECT run_id, user FROM runs"))
        tried: dict[str, list[AttemptRecord]] = {}
        for job_id, *fields in attempts:
            tried.setdefault(job_id, []).append(_attempt(*fields))
        return tuple(
            JobRecord(
                spec=self._spec(job_id, spec),
                run_id=run_id,
                sequence=sequence,
                state=JobState(state),
                reason=reason,
                submitted_ns=submitted_ns,
                attempts=tuple(tried.get(job_id, ())),
                user=users.get(run_id),
            )
            for job_id, run_id, sequence, spec, state, reason, submitted_ns in rows
        )

    def _spec(self, job_id: str, text: str) -> JobSpec:
        if job_id not in self._specs:
            self._specs[job_id] = JobSpec.from_json(text, source=f"job {job_id} of the ledger")
        return self._specs[job_id]

    def start_attempt(self, job_id: str, *, node: str, accelerator: str | None, now_ns: int) -> int:
        """The job runs: record a new attempt on ``node`` and give its number.

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: it is not queued.
        """
        with self._transaction():
            self._move(job_id, JobState.RUNNING, None, now_ns)
            (last,) = self._db.execute("SELECT max(number) FROM attempts WHERE job_id = ?", (job_id,)).fetchone()
            number = int(last or 0) + 1
            self._db.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, NULL, ?, ?, ?, NULL)",
                (job_id, number, JobState.RUNNING, node, accelerator, now_ns),
            )
            self._event(
                job_id, now_ns, f"attempt {number} starts on {node}{f' ({accelerator})' if accelerator else ''}"
            )
            return number

    def end_attempt(
        self, job_id: str, number: int, *, state: JobState, reason: str | None, then: JobState, now_ns: int
    ) -> None:
        """The attempt ended in ``state``; the job goes on to ``then`` (queued again, or the same final state).

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: that attempt is not running, or the job cannot become ``then``.
        """
        with self._transaction():
            ended = self._db.execute(
                "UPDATE attempts SET state = ?, reason = ?, ended_ns = ? WHERE job_id = ? AND number = ? AND state = ?",
                (state, reason, now_ns, job_id, number, JobState.RUNNING),
            )
            if not ended.rowcount:
                raise IllegalTransitionError(
                    f"attempt {number} of job {job_id} does not run, so it cannot become {state}."
                )
            self._event(job_id, now_ns, f"attempt {number} {state}{': ' + reason if reason else ''}")
            self._move(job_id, then, reason, now_ns)

    def set_state(self, job_id: str, state: JobState, *, reason: str | None, now_ns: int) -> None:
        """Move a job that has no running attempt.

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: it cannot become ``state``, or an attempt runs, which ``end_attempt`` must end.
        """
        with self._transaction():
            running = self._db.execute(
                "SELECT number FROM attempts WHERE job_id = ? AND state = ?", (job_id, JobState.RUNNING)
            ).fetchone()
            if running:
                raise IllegalTransitionError(
                    f"attempt {running[0]} of job {job_id} runs: end it to make the job {state}."
                )
            self._move(job_id, state, reason, now_ns)

    def finish(self, run_id: str, state: JobState, *, reason: str, now_ns: int) -> None:
        """End every job of a run that has not ended, and its running attempt, in the final ``state``."""
        for job in self.jobs(run_id=run_id):
            if job.state is JobState.RUNNING:
                last = job.attempts[-1].number
                self.end_attempt(job.job_id, last, state=state, reason=reason, then=state, now_ns=now_ns)
            elif job.state is JobState.QUEUED:
                self.set_state(job.job_id, state, reason=reason, now_ns=now_ns)

    def events(self, job_id: str) -> tuple[tuple[int, str], ...]:
        """What happened to a job: ``(time_ns, sentence)``, oldest first."""
        rows = self._rows("SELECT time_ns, what FROM events WHERE job_id = ? ORDER BY event_id", (job_id,))
        return tuple((int(time_ns), str(what)) for time_ns, what in rows)

    def set_budget(self, budget: BudgetRecord) -> None:
        """Set what somebody may use in a period, in the place of what was set for that before."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?, ?, ?)",
                (budget.scope, budget.name, budget.period, budget.energy_kwh, budget.co2e_kg, budget.set_ns),
            )

    def remove_budget(self, scope: BudgetScope, name: str, period: BudgetPeriod) -> None:
        """Take a budget back.

        Raises:
            InputError: there is none.
        """
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM budgets WHERE scope = ? AND name = ? AND period = ?", (scope, name, period)
            )
        if not gone.rowcount:
            raise InputError(f"{scope} {name} has no budget per {period}. See those there are: wattledger budget show")

    def budgets(self) -> tuple[BudgetRecord, ...]:
        """All that are set, by scope, name and period."""
        rows = self._rows("SELECT scope, name, period, energy_kwh, co2e_kg, set_ns FROM budgets ORDER BY 1, 2, 3")
        return tuple(
            BudgetRecord(scope=a, name=b, period=c, energy_kwh=d, co2e_kg=e, set_ns=f) for a, b, c, d, e, f in rows
        )

    def _move(self, job_id: str, state: JobState, reason: str | None, now_ns: int) -> None:
        now = self._find_state(job_id)
        if now is None:
            raise self._unknown(job_id)
        check_transition(job_id, now, state)
        self._db.execute("UPDATE jobs SET state = ?, reason = ? WHERE job_id = ?", (state, reason, job_id))
        self._event(job_id, now_ns, f"{now} -> {state}{': ' + reason if reason else ''}")

    def _find_state(self, job_id: str) -> JobState | None:
        found = self._db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return None if found is None else JobState(found[0])

    def _unknown(self, job_id: str) -> UnknownNameError:
        return UnknownNameError("job", job_id, [name for (name,) in self._rows("SELECT job_id FROM jobs")])

    def _event(self, job_id: str, now_ns: int, what: str) -> None:
        self._db.execute("INSERT INTO events (job_id, time_ns, what) VALUES (?, ?, ?)", (job_id, now_ns, what))

    def _rows(self, question: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        try:
            return self._db.execute(question, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"the ledger cannot be read: {error}. Restore it from a copy, or start another."
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, also when the disk is full."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself goes back where the disk refused
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise InputError(f"the ledger cannot be written: {error}. Free disk space or check its rights.") from error


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
