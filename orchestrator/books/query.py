"""A person's SQL over the views: it reads, of this ledger alone, and within the memory it is given.

DuckDB itself keeps the limits: the database is opened for reading, files are those of the ledger's logs, extensions
stay out, and the settings are locked before the first word of the question is looked at.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from orchestrator.books.database import MEMORY_LIMIT, PATIENCE_S, Books, connect, database_path, open_books
from orchestrator.books.refresh import refresh
from orchestrator.books.views import ENERGY_FILES, FILE_VIEWS, METRIC_FILES
from workers.errors import InputError
from workers.home import Home
from workers.logfolder import log_files

_MAGIC = b"PAR1"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a question gave: a row has as many values as there are ``columns``; times are UTC.

    Attributes:
        is_cut: there are more rows than were asked for.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an answer may cost: ``rows`` at most, after ``seconds`` at most; ``None`` is no limit."""

    rows: int | None = None
    seconds: float | None = None


def ask(home: Home, question: str, limits: Limits = Limits()) -> Answer:
    """Answer one ``SELECT`` from books that are up to date; to bring them there takes its time beside the limits.

    Raises:
        InputError: it is no query, or not one, or reads what it may not, or takes too long, or DuckDB cannot run it;
            says why.
        UnreachableError: another process holds the database.
    """
    with open_books(home) as books:
        refresh(books)
        files = _files(books, question)
        if books.in_memory:
            return _answer(books.connection, home, files, question, limits)
    connection = connect(
        database_path(home),
        memory_limit=MEMORY_LIMIT,
        deadline=time.monotonic() + PATIENCE_S,
        clock=time.monotonic,
        sleep=time.sleep,
        read_only=True,
    )
    with connection:
        return _answer(connection, home, files, question, limits)


def _files(books: Books, question: str) -> dict[str, list[str]]:
    """The files each view reads: what can be read of the energy log, and metric logs where the question names them."""
    energy = books.rows("SELECT path FROM files WHERE problem IS NULL ORDER BY path")
    metrics = log_files(books.home.root / "metrics") if "metrics" in question.lower() else ()
    return {
        ENERGY_FILES: [str(books.home.root / path) for (path,) in energy],
        METRIC_FILES: [str(path) for path in metrics if _is_whole(path)],
    }


def _is_whole(path: Path) -> bool:
    """Whether a file ends as Parquet does: one that was cut short must not cost the answer from all others."""
    with path.open("rb") as file:
        return (
            file.seek(0, os.SEEK_END) > len(_MAGIC)
            and file.seek(-len(_MAGIC), os.SEEK_END) > 0
            and (file.read() == _MAGIC)
        )


def _answer(
    connection: duckdb.DuckDBPyConnection, home: Home, files: dict[str, list[str]], question: str, limits: Limits
) -> Answer:
    _close_doors(connection, home, files)
    try:
        statements = connection.extract_statements(question)
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            raise InputError("only one query is answered, a SELECT: the books are read here, never written.")
        with _interrupted(connection, limits.seconds):
            result = connection.execute(statements[0])
            columns = tuple(column[0] for column in result.description or ())
            rows = result.fetchall() if limits.rows is None else result.fetchmany(limits.rows + 1)
        kept = tuple(rows[: limits.rows])
        return Answer(columns=columns, rows=kept, is_cut=len(kept) < len(rows))
    except duckdb.InterruptException as error:
        raise InputError(
            f"there was no answer after {limits.seconds:g} s. Ask for less (energy_by_hour and phases are sums; energy "
            "and metrics are not), or give it longer: --timeout."
        ) from error
    except duckdb.PermissionException as error:
        raise InputError(f"a query reads this ledger's views and nothing else. DuckDB says: {error}") from error
    except duckdb.Error as error:
        raise InputError(f"DuckDB cannot answer that: {error}") from error


@contextlib.contextmanager
def _interrupted(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Ends what the connection does once that much time has passed."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # an interrupt must not meet the connection after it is closed


def _close_doors(connection: duckdb.DuckDBPyConnection, home: Home, files: dict[str, list[str]]) -> None:
    """The views over files, and then no other file, no extension, and no way to change that."""
    for name, paths in files.items():
        connection.execute(f"SET VARIABLE {name} = (SELECT list(path) FROM (SELECT unnest(?) AS path))", [paths])
    for statement in _view_statements(files):
        connection.execute(statement)
    folders = ", ".join(_quoted(f"{home.root / name}/") for name in ("energy", "metrics"))
    connection.execute(
        f"SET TimeZone = 'UTC'; SET search_path = 'main'; SET allowed_directories = [{folders}]; "
        "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; "
        "SET enable_external_access = false; SET lock_configuration = true"
    )


def _view_statements(files: dict[str, list[str]]) -> Sequence[str]:
    return [view for name, view in FILE_VIEWS.items() if files[name]]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
