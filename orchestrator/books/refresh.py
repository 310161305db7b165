"""Bring the derived database up to date: only files and jobs that are new, changed or gone cost anything."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from orchestrator.books.database import Books
from orchestrator.books.decisions import refresh_decisions
from orchestrator.books.summary import SUMMARISE
from workers.contract import EnergyEntry
from workers.home import Home
from workers.logfolder import log_files
from workers.parquet import partition_labels
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import Journals, journalled, lost_days, read_journals

BATCH_FILES = 500
"""Files summed in one transaction: few enough for the usual limit of 1,024 open files."""
JOURNALS = -1
"""The file id of what is in agents' journals and in no file yet."""
_ROUNDS = 5
"""How often the folder is listed again when files vanish under the reader (someone compacts)."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells one content of a file from another: files are written once, so a changed one was damaged or mended."""

    bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a refresh did.

    Attributes:
        summed: files whose entries were added; ``forgotten``: files that are gone or changed.
        unreadable: files that cannot be read, all told: energy of their nodes and days may be missing.
        jobs: jobs that are new or changed.
    """

    summed: int
    forgotten: int
    unreadable: int
    jobs: int


def refresh(books: Books) -> Refreshed:
    """Sum what is new and forget what is gone; a file that cannot be read is recorded, not an error.

    Raises:
        InputError: ``state.db`` cannot be read.
    """
    jobs = refresh_decisions(books)
    journals = read_journals(books.home.energy())
    summed = forgotten = 0
    for _ in range(_ROUNDS):
        listed, known = stamps(books.home), _known(books)
        stale = [file_id for path, (file_id, stamp) in known.items() if listed.get(path) != stamp]
        new = [path for path, stamp in listed.items() if path not in known or known[path][1] != stamp]
        if not stale and not new:
            break
        _forget(books, stale)
        forgotten += len(stale)
        for first in range(0, len(new), BATCH_FILES):
            summed += _add(books, {path: listed[path] for path in new[first : first + BATCH_FILES]})
    _add_journals(books, journals)
    ((unreadable,),) = books.rows("SELECT count(*) FROM files WHERE problem IS NOT NULL")
    return Refreshed(summed=summed, forgotten=forgotten, unreadable=unreadable, jobs=jobs)


def stamps(home: Home) -> dict[str, Stamp]:
    """Every file of the energy log that counts: its path below the home, and its stamp."""
    found: dict[str, Stamp] = {}
    for path in log_files(home.energy()):
        with contextlib.suppress(FileNotFoundError):  # compacted a moment ago; the next round finds what replaced it
            status = path.stat()
            found[str(path.relative_to(home.root))] = Stamp(bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    return found


def _known(books: Books) -> dict[str, tuple[int, Stamp]]:
    return {
        path: (file_id, Stamp(bytes=size, mtime_ns=mtime_ns))
        for file_id, path, size, mtime_ns in books.rows("SELECT file_id, path, bytes, mtime_ns FROM files")
    }


def _forget(books: Books, file_ids: Sequence[int]) -> None:
    if file_ids:
        with books.transaction():
            for table in ("hours", "files"):
                books.rows(f"DELETE FROM {table} WHERE file_id IN (SELECT unnest(?))", [list(file_ids)])


def _add(books: Books, files: Mapping[str, Stamp]) -> int:
    """Sum ``files``, all or none; where one of them cannot be read, find it by halves. Gives how many were summed."""
    try:
        with books.transaction():
            _record(books, files)
            paths = [str(books.home.root / path) for path in files]
            books.rows(
                "CREATE OR REPLACE TEMP TABLE batch AS SELECT file_id, node, filename FROM files "
                "JOIN (SELECT unnest(?) AS path, unnest(?) AS filename) USING (path) WHERE problem IS NULL",
                [list(files), paths],
            )
            books.rows(SUMMARISE, [paths])
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if len(files) == 1:
            _record_unreadable(books, files, error)
            return 0
        middle, items = len(files) // 2, list(files.items())
        return _add(books, dict(items[:middle])) + _add(books, dict(items[middle:]))
    return len(files)


def _add_journals(books: Books, journals: Journals) -> None:
    """Put the last minute of each node, which is in no file yet, in the place of what was the last minute before."""
    counted = [books.home.root / path for (path,) in books.rows("SELECT path FROM files WHERE problem IS NULL")]
    by_node: dict[str, list[EnergyEntry]] = {}
    for path, _, entry in journalled(journals, counted=counted):
        by_node.setdefault(partition_labels(path)["node"], []).append(entry)
    for path in journals.unreadable:
        for node, date in lost_days([path]):  # forgotten by the next refresh, which looks again
            books.rows(
                "INSERT INTO files (path, node, date, bytes, mtime_ns, problem) VALUES (?, ?, ?, 0, 0, ?)",
                [str(path.relative_to(books.home.root)), node, date, "this journal cannot be read"],
            )
    with tempfile.TemporaryDirectory() as folder, books.transaction():
        books.rows("DELETE FROM hours WHERE file_id = ?", [JOURNALS])
        written = {
            str(path): node
            for node, entries in by_node.items()
            for path in EnergyLog(Path(folder) / f"node={node}", boot="journal").write(entries)
        }
        if written:
            books.rows(
                "CREATE OR REPLACE TEMP TABLE batch AS "
                "SELECT ?::INTEGER AS file_id, unnest(?) AS node, unnest(?) AS filename",
                [JOURNALS, list(written.values()), list(written)],
            )
            books.rows(SUMMARISE, [list(written)])


def _record(books: Books, files: Mapping[str, Stamp], problem: str | None = None) -> None:
    labels = [partition_labels(books.home.root / path) for path in files]
    misplaced = "it is in no folder node=…/date=…"
    books.rows(
        "INSERT INTO files (path, node, date, bytes, mtime_ns, problem) "
        "SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
        [
            list(files),
            [found.get("node") for found in labels],
            [found.get("date") for found in labels],
            [stamp.bytes for stamp in files.values()],
            [stamp.mtime_ns for stamp in files.values()],
            [problem if {"node", "date"} <= found.keys() else misplaced for found in labels],
        ],
    )


def _record_unreadable(books: Books, files: Mapping[str, Stamp], error: duckdb.Error) -> None:
    """Why one file's energy is not counted; one that has vanished has no energy of its own any more."""
    (path,) = files
    if (books.home.root / path).exists():
        with books.transaction():
            _record(books, files, problem=str(error).strip().splitlines()[0])
