"""Many small files of a closed day become one, which no crash can make lose or double a millijoule.

The new file is written whole under a hidden name, pushed to disk and renamed; only then are its inputs removed. It
names them in its metadata, and readers ignore a file that a compacted one beside it names (``workers.logfolder``). So
at any moment, and after a crash at any moment, what counts is either all the inputs or the one file. Compacting again
finishes what was cut short.

Neighbouring entries of one account become one entry within a minute of the clock, their energy added. What a figure
could tell apart stays apart: entries over the edge of a minute, and entries of jobs without a phase, which accounting
may cut.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from orchestrator.books.database import Books, open_books
from orchestrator.books.refresh import refresh
from orchestrator.books.summary import COLUMNS, READ_ENERGY
from workers.errors import InputError, WattledgerError
from workers.home import Home
from workers.logfolder import COMPACTED, REPLACES, log_files, pack_names, replaced_by
from workers.parquet import partition_labels
from workers.telemetry.energy_log import utc_date
from workers.telemetry.journal import journals_below, stem_of
from workers.units import NS_PER_S

NS_PER_DAY = 86_400 * NS_PER_S
US_PER_MINUTE = 60_000_000
MOST_FILES = 5_000
"""Files merged at once: DuckDB keeps some 50 kB of each in memory. A day of more is merged in several rounds."""
_ACCOUNT = "device, model, kind, job_id, attempt, phase, share, method, quality, unwitnessed, bucket, merges"
_MERGE = f"""
WITH entries AS (
    SELECT * REPLACE (coalesce(quality, []) AS quality), witness_mj IS NULL AS unwitnessed,
        epoch_us("start") AS start_us, epoch_us("end") AS end_us, start_us // {US_PER_MINUTE} AS bucket,
        (job_id IS NULL OR phase IS NOT NULL) AND end_us <= (bucket + 1) * {US_PER_MINUTE} AS merges
    FROM ({READ_ENERGY})
),
neighbours AS (
    SELECT *, merges AND coalesce(lag(end_us) OVER account = start_us, false) AS continues
    FROM entries WINDOW account AS (PARTITION BY {_ACCOUNT} ORDER BY start_us, end_us, energy_mj)
),
stretches AS (
    SELECT *, sum(CASE WHEN continues THEN 0 ELSE 1 END) OVER account AS stretch
    FROM neighbours
    WINDOW account AS (PARTITION BY {_ACCOUNT} ORDER BY start_us, end_us, energy_mj ROWS UNBOUNDED PRECEDING)
)
SELECT min("start") AS "start", max("end") AS "end", device, model, kind, sum(energy_mj)::BIGINT AS energy_mj,
    job_id, attempt, phase, share, method, quality, sum(witness_mj)::BIGINT AS witness_mj
FROM stretches GROUP BY {_ACCOUNT}, stretch ORDER BY device, "start"
"""
_TOTALS = f"SELECT count(*), sum(energy_mj), sum(witness_mj) FROM ({READ_ENERGY})"


class CompactionError(WattledgerError):
    """A day's files were left as they were."""


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What became of one day of one node.

    Attributes:
        files: files before; ``entries``, ``entries_left``: rows before and after.
        bytes: size before, and ``bytes_left`` after.
        problem: why the day was left as it is; ``None`` when it was compacted.
    """

    node: str
    date: str
    files: int
    entries: int = 0
    entries_left: int = 0
    bytes: int = 0
    bytes_left: int = 0
    problem: str | None = None


def closed_before(now_ns: int, *, older_than_days: int) -> str:
    """The first UTC date that is not closed: days before it ended at least that many days ago."""
    return utc_date(now_ns - older_than_days * NS_PER_DAY)


def compact_ledger(home: Home, *, before: str) -> Iterator[Compacted]:
    """Compact every node's days before that UTC date; one process at a time, since it holds the derived database.

    Raises:
        UnreachableError: another process holds it.
        InputError: the ledger cannot be written.
        OSError: the disk refuses.
    """
    with open_books(home) as books:
        if books.in_memory:
            raise InputError(f"{home.root} cannot be written, so nothing can be compacted: check its rights.")
        yield from compact(books, before=before)


def compact(books: Books, *, before: str) -> Iterator[Compacted]:
    """Compact every node's days before that UTC date, one by one; days with nothing to do are not mentioned.

    Raises:
        OSError: the disk refuses.
    """
    refresh(books)
    unreadable = {books.home.root / path for (path,) in books.rows("SELECT path FROM files WHERE problem IS NOT NULL")}
    for folder in sorted(books.home.energy().glob("node=*/date=*")):
        if _labels(folder)[1] < before:
            try:
                yield from (step for step in compact_day(books, folder, unreadable) if isinstance(step, Compacted))
            except (CompactionError, duckdb.Error) as error:
                yield _left(folder, str(error).strip().splitlines()[0])
    refresh(books)


def compact_day(books: Books, folder: Path, unreadable: Collection[Path] = ()) -> Iterator[str | Compacted]:
    """The steps of compacting one folder, each done when it is yielded; the last yields what was done, if anything.

    To stop between two steps is to crash there: whatever is on the disk then counts every entry once.

    Raises:
        CompactionError: the entries would not add up, or have columns this version does not know.
        OSError: the disk refuses.
    """
    yield from _finish(folder)
    inputs = _inputs(folder, unreadable)
    files, size = len(inputs), sum(path.stat().st_size for path in inputs)
    merged = left = 0
    while len(inputs) > 1:
        rows, left = yield from _merge(books, folder, inputs[:MOST_FILES])
        merged += rows - left
        inputs = _inputs(folder, unreadable)
    if left:
        node, date = _labels(folder)
        after = sum(path.stat().st_size for path in inputs)
        entries = merged + left
        yield Compacted(
            node=node, date=date, files=files, entries=entries, entries_left=left, bytes=size, bytes_left=after
        )


def _inputs(folder: Path, unreadable: Collection[Path]) -> list[Path]:
    """Files that can be merged. What a journal holds too is told from it by its file's name, so that file stays."""
    journals = {stem_of(journal) for journal in journals_below(folder.parent)}
    return [path for path in log_files(folder) if path not in unreadable and path.stem not in journals]


def _merge(books: Books, folder: Path, inputs: Sequence[Path]) -> Generator[str, None, tuple[int, int]]:
    """The steps of making one file of some; gives rows before and after."""
    replaced = {path.name for path in inputs}.union(*(replaced_by(path) for path in inputs if _is_compacted(path)))
    digest = hashlib.sha256("\n".join(sorted(replaced)).encode()).hexdigest()
    name = f"{COMPACTED}{digest[:16]}.parquet"
    hidden = folder / f".{name}.tmp"
    rows = _write(books, inputs, hidden, replaced)
    yield f"wrote {hidden.name}"
    hidden.replace(folder / name)
    _push(folder)
    yield f"published {name}"
    yield from _remove(inputs)
    return rows


def _finish(folder: Path) -> Iterator[str]:
    """Remove what an earlier compaction left behind: files never published, and inputs of those that were."""
    for path in folder.glob(f".{COMPACTED}*.tmp"):
        path.unlink()
        yield f"removed {path.name}"
    for path in folder.glob(f"{COMPACTED}*.parquet"):
        yield from _remove([folder / name for name in replaced_by(path)])


def _write(books: Books, inputs: Sequence[Path], hidden: Path, replaced: Collection[str]) -> tuple[int, int]:
    """Write the merged entries, check that they add up, and push them to disk. Gives rows before and after."""
    names = [str(path) for path in inputs]
    columns = {
        row[0]
        for row in books.rows(
            "DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true, hive_partitioning = false)", [names]
        )
    }
    if unknown := sorted(columns - set(COLUMNS)):
        raise CompactionError(f"files have columns this version does not know: {', '.join(unknown)}. Upgrade first.")
    target, packed = _quoted(str(hidden)), _quoted(pack_names(replaced))
    options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{'{REPLACES}': {packed}}}"
    books.rows(f"COPY ({_MERGE}) TO {target} ({options})", [names])
    ((entries, *energy),), ((entries_left, *merged),) = (
        books.rows(_TOTALS, [names]),
        books.rows(_TOTALS, [[str(hidden)]]),
    )
    if energy != merged:
        hidden.unlink()
        raise CompactionError(
            f"the merged entries add up to {merged} mJ, their inputs to {energy} mJ; nothing was changed."
        )
    _push(hidden)
    return entries, entries_left


def _remove(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        if path.exists():
            path.unlink()
            yield f"removed {path.name}"


def _is_compacted(path: Path) -> bool:
    return path.name.startswith(COMPACTED)


def _left(folder: Path, problem: str) -> Compacted:
    node, date = _labels(folder)
    return Compacted(node=node, date=date, files=len(log_files(folder)), problem=problem)


def _labels(folder: Path) -> tuple[str, str]:
    """Node and date of a folder."""
    labels = partition_labels(folder / "_")
    return labels["node"], labels["date"]


def _push(path: Path) -> None:
    """Make a file's content, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
