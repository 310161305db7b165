"""The file: opened, brought up to date, read in rows and written in whole transactions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.schema import MIGRATIONS, SCHEMA_VERSION, TABLES
from workers.errors import InputError, LedgerError

Row = tuple[Any, ...]
"""A row of SQLite, columns as in the question."""


class Database:
    """One connection, for one thread; several processes may each have their own.

    Raises:
        InputError: the file is no ledger of ours, or a newer version's, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
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
            with self.together():
                # Asked again: somebody else may have made it in the meantime.
                for version in range(self._version(path), SCHEMA_VERSION):
                    for statement in MIGRATIONS[version].split(";"):
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _version(self, path: Path) -> int:
        """The file's schema, which this version reads; 0 when there is nothing in it yet."""
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables >= TABLES:
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

    def data_version(self) -> int:
        """A number that is another one after somebody else has written; what is written here does not change it.

        Cheap enough to ask many times a second.
        """
        return int(self._rows("PRAGMA data_version")[0][0])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All changes of the block are written at once, or none is, also when the disk is full.

        A block within another is written with it; of itself it can only fail alone.

        Raises:
            LedgerError: the file cannot be written.
        """
        within = self._db.in_transaction
        begin, keep, back = _WITHIN if within else _WHOLE
        try:
            self._db.execute(begin)
            try:
                yield
                self._db.execute(keep)
            except BaseException:
                if self._db.in_transaction:  # SQLite itself goes back where the disk refused
                    for statement in back:
                        self._db.execute(statement)
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger cannot be written: {error}. Free disk space or check its rights.") from error

    def _change(self, statement: str, parameters: tuple[object, ...] = ()) -> int:
        """Within ``together``: run a statement, and give how many rows it changed."""
        return self._db.execute(statement, parameters).rowcount

    def _change_each(self, statement: str, rows: Sequence[Row]) -> None:
        """Within ``together``: run a statement for each row."""
        self._db.executemany(statement, rows)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Questions of the block are answered from one state of the ledger, whoever writes in between."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def _rows(self, question: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        try:
            return self._db.execute(question, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"the ledger cannot be read: {error}. Restore it from a copy, or start another."
            ) from error


_WHOLE = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_WITHIN = ("SAVEPOINT within", "RELEASE within", ("ROLLBACK TO within", "RELEASE within"))
