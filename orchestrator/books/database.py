"""The derived database: opened by one process at a time, and made anew whenever it cannot be used.

Tables, in the schema ``books`` (what people query is in ``views``):
    files: one row per file of the energy log that was looked at; ``problem`` says why its energy is not counted.
    hours: sums of one file's entries per UTC hour and account; exact integers of millijoules.
    runs, jobs, attempts: decisions, as ``state.db`` has them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from orchestrator.books.views import VIEWS
from workers.errors import InputError, UnreachableError, WattledgerError
from workers.home import Home

SCHEMA_VERSION = 3
"""Raised whenever a table or what is counted in it changes: a database of another version is made anew."""
MEMORY_LIMIT = "2GB"
"""What DuckDB may take for its own before it spills to disk. A month of 1,000 GPUs needs less (tests/bench/rollup)."""
PATIENCE_S = 30.0
"""How long to wait for another process to let go of the database."""
RETRY_S = 0.05
_SCHEMA = f"""
CREATE SCHEMA books;
SET search_path = 'books';
CREATE TABLE about (schema_version INTEGER, last_event BIGINT);
INSERT INTO about VALUES ({SCHEMA_VERSION}, 0);
CREATE SEQUENCE file_ids;
CREATE TABLE files (
    file_id INTEGER DEFAULT nextval('books.file_ids'), path VARCHAR, node VARCHAR, date VARCHAR, bytes BIGINT,
    mtime_ns BIGINT, problem VARCHAR
);
CREATE TABLE hours (
    file_id INTEGER, node VARCHAR, hour BIGINT, device VARCHAR, model VARCHAR, kind VARCHAR, job_id VARCHAR,
    attempt INTEGER, phase VARCHAR, method VARCHAR, quality VARCHAR, energy_mj HUGEINT, witness_mj HUGEINT,
    witnessed_mj HUGEINT, start_us BIGINT, end_us BIGINT, held_us HUGEINT, share DOUBLE
);
CREATE TABLE runs (run_id VARCHAR, name VARCHAR, host VARCHAR, submitted_ns BIGINT);
CREATE TABLE jobs (
    job_id VARCHAR, run_id VARCHAR, sequence INTEGER, state VARCHAR, reason VARCHAR, submitted_ns BIGINT,
    "user" VARCHAR, spec JSON
);
CREATE TABLE attempts (
    job_id VARCHAR, attempt INTEGER, state VARCHAR, reason VARCHAR, node VARCHAR, accelerator VARCHAR,
    started_ns BIGINT, ended_ns BIGINT, wasted BOOLEAN
);
{VIEWS}
"""


@dataclass(frozen=True, kw_only=True)
class Books:
    """The open database of one ledger, for one thread.

    Attributes:
        in_memory: nothing of it is kept, since the ledger's folder cannot be written.
    """

    home: Home
    connection: duckdb.DuckDBPyConnection
    in_memory: bool

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement of ours and give its rows."""
        return self.connection.execute(statement, list(parameters)).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


def database_path(home: Home) -> Path:
    """Where the database is kept."""
    return home.root / "derived" / "ledger.duckdb"


@contextlib.contextmanager
def open_books(
    home: Home,
    *,
    patience_s: float = PATIENCE_S,
    memory_limit: str = MEMORY_LIMIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Books]:
    """The derived database, empty where there was none, or none that this version can use.

    Where the ledger's folder cannot be written, the database is in memory: the same answers, from the beginning.

    Raises:
        UnreachableError: another process still holds it after ``patience_s``.
        InputError: the ledger's path has a character that DuckDB takes for a pattern.
        WattledgerError: DuckDB fails: no memory, or no disk space, is left.
    """
    if set(str(home.root)) & set("*?["):
        raise InputError(f"{home.root} cannot be queried: move the ledger to a path without '*', '?' and '['.")
    path, in_memory = database_path(home), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _opened(path, memory_limit, clock() + patience_s, clock, sleep)
    except OSError:
        connection, in_memory = _created(":memory:", memory_limit), True
    try:
        yield Books(home=home, connection=connection, in_memory=in_memory)
    except duckdb.Error as error:
        raise WattledgerError(
            f"the derived database failed: {_first_line(error)}. Free memory or disk space, or remove {path.parent}: "
            "it is made anew from the logs."
        ) from error
    finally:
        connection.close()


def connect(
    path: Path,
    *,
    memory_limit: str,
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    read_only: bool = False,
) -> duckdb.DuckDBPyConnection:
    """A connection to the file, waited for while another process holds it.

    Raises:
        UnreachableError: it is still held at ``deadline``.
        duckdb.Error: it is no database, or one of another DuckDB.
    """
    while True:
        try:
            return duckdb.connect(path, read_only=read_only, config=_config(memory_limit))
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            if clock() >= deadline:
                raise UnreachableError(
                    f"{path} is in use by another wattledger command: wait for it to end. ({_first_line(error)})"
                ) from error
        sleep(RETRY_S)


def _opened(
    path: Path, memory_limit: str, deadline: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> duckdb.DuckDBPyConnection:
    """The database as it is, or a new one in its place."""
    fresh = not path.exists()
    try:
        connection = connect(path, memory_limit=memory_limit, deadline=deadline, clock=clock, sleep=sleep)
        if fresh or _is_current(connection):
            return _prepared(connection)
        connection.close()
    except duckdb.Error as error:
        if "Permission denied" in str(error) or "Read-only" in str(error):
            raise PermissionError(str(error)) from error
    for stale in (path, path.with_name(f"{path.name}.wal")):
        stale.unlink(missing_ok=True)
    return _prepared(connect(path, memory_limit=memory_limit, deadline=deadline, clock=clock, sleep=sleep))


def _is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        found = connection.execute("SELECT schema_version FROM books.about").fetchone()
    except duckdb.CatalogException:  # whoever made it was killed before it had tables
        return not connection.execute("SELECT 1 FROM duckdb_tables()").fetchall()
    return found == (SCHEMA_VERSION,)


def _created(path: str, memory_limit: str) -> duckdb.DuckDBPyConnection:
    return _prepared(duckdb.connect(path, config=_config(memory_limit)))


def _prepared(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """With its tables, made in one transaction, and in UTC."""
    connection.execute("SET TimeZone = 'UTC'")
    if not connection.execute("SELECT 1 FROM duckdb_tables()").fetchall():
        connection.execute(f"BEGIN; {_SCHEMA} COMMIT")
    connection.execute("SET search_path = 'books'")
    return connection


def _config(memory_limit: str) -> dict[str, str | bool | int | float | list[str]]:
    return {"memory_limit": memory_limit, "autoinstall_known_extensions": False, "autoload_known_extensions": False}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
