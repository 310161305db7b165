"""The energy log: every joule a node's devices drew, booked once. One row is one ``EnergyEntry``.

Energy is exact (integer millijoules); times are kept to the microsecond. An agent's entries come to a journal first
(see ``journal``) and become Parquet files every ten minutes; ``energy_read`` reads both, each entry once.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from workers.contract import EnergyEntry
from workers.errors import InputError
from workers.parquet import Column, write_atomically
from workers.telemetry.journal import (
    Journal,
    Record,
    State,
    Write,
    entries_of,
    is_held,
    journals_below,
    read_journal,
    stem_of,
)
from workers.telemetry.merging import merge
from workers.units import NS_PER_S

SCHEMA = {
    "start": Column.TIME,
    "end": Column.TIME,
    "device": Column.TEXT,
    "model": Column.TEXT,
    "kind": Column.TEXT,
    "energy_mj": Column.INT64,
    "job_id": Column.TEXT,
    "attempt": Column.INT32,
    "phase": Column.TEXT,
    "share": Column.FLOAT64,
    "method": Column.TEXT,
    "quality": Column.TEXTS,
    "witness_mj": Column.INT64,
}
LATER = ("witness_mj",)
"""Columns that logs of earlier versions lack; there they read as null."""


TAKEOVER_TIMEOUT_S = 2.0
"""How long a new agent may wait for the journal of the one before it, which is just leaving."""


class Settler(Protocol):
    """Makes Parquet files of journals that nobody appends to any more, at once or by and by."""

    def start(self, journals: Sequence[Path]) -> None:
        """Begin with these; while others are still under way, nothing happens.

        Raises:
            OSError: it cannot begin.
        """
        ...

    def done(self, *, wait: bool = False) -> Sequence[Path]:
        """The journals settled since the last call; ``wait`` until none is under way.

        Raises:
            OSError: the disk refused; ``start`` with them again.
        """
        ...


class Here:
    """Settles journals at once, in this process."""

    def __init__(self) -> None:
        self._done: tuple[Path, ...] = ()

    def start(self, journals: Sequence[Path]) -> None:
        """Settle them."""
        for journal in journals:
            settle(journal)
        self._done = tuple(journals)

    def done(self, *, wait: bool = False) -> Sequence[Path]:  # noqa: ARG002 - the port's signature
        """Those of the last ``start``."""
        done, self._done = self._done, ()
        return done


class EnergyLog:
    """Writes one node's energy log. Not thread-safe.

    Args:
        folder: ``Home.energy(node)``; made at the first write.
        boot: names this run of the agent, so that files of different runs never meet (letters, digits, ``.``, ``_``,
            ``-``).
        clock_ns: ns since the epoch; names journals.
        write: how bytes get into a journal.
        settler: how journals become Parquet files; by default here and now.

    Raises:
        InputError: ``boot`` does not fit a file name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        boot: str,
        clock_ns: Callable[[], int] = time.time_ns,
        write: Write = os.write,
        settler: Settler | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", boot):
            raise InputError(f"{boot!r} cannot name a run of the agent: use letters, digits, '.', '_' or '-'.")
        self._folder, self._boot, self._clock_ns, self._write = folder, boot, clock_ns, write
        self._settler = settler or Here()
        self._numbers = itertools.count()
        self._journal: Journal | None = None
        self._last = Record(number=0, entries=(), state={})
        # Journals that nobody appends to any more: whose entries are not in Parquet files yet, and whose are.
        self._full: list[Path] = []
        self._spent: list[Path] = []

    def write(self, entries: Sequence[EnergyEntry]) -> tuple[Path, ...]:
        """Write ``entries``, one file for each UTC date on which some of them start; no entries, no file.

        All or nothing: a caller that keeps the entries of a write that failed, and writes them again, books them once.

        Raises:
            OSError: the disk refused.
        """
        stem = self._stem(entries[0].start_ns if entries else 0)
        written: list[Path] = []
        try:
            for date, part in by_date(entries):
                written.append(_write_date(parquet_path(self._folder, date, stem), part))
        except OSError:
            for path in written:
                path.unlink()
            raise
        return tuple(written)

    def recover(self, *, timeout_s: float = TAKEOVER_TIMEOUT_S) -> State | None:
        """Take over what an agent of this node that was killed has left; gives its last state, ``None`` without one.

        The entries stay where they are until ``roll``, and the state until the first ``append``.

        Raises:
            InputError: an agent of this node still writes here. Two of them would book every joule twice.
        """
        pause, deadline_s = threading.Event(), time.monotonic() + timeout_s
        while held := [path for path in journals_below(self._folder) if _is_held(path)]:
            if time.monotonic() >= deadline_s:
                raise InputError(f"an agent of this node already writes {held[0]}. Lease from it, or stop it first.")
            pause.wait(0.05)
        self._full = journals_below(self._folder)
        records = [record for path in self._full for record in _records(path)]
        if not records:
            return None
        self._last = max(records, key=lambda record: record.number)
        return self._last.state or None

    def append(self, entries: Sequence[EnergyEntry], state: State) -> None:
        """Put ``entries``, and where the books stand with them, on disk: all of it or nothing.

        Raises:
            OSError: the disk refused.
        """
        if self._journal is None:
            self._journal = Journal(self._folder, self._stem(self._clock_ns()), write=self._write)
        record = Record(number=self._last.number + 1, entries=tuple(entries), state=state)
        self._journal.append(record)
        self._last = replace(record, entries=())
        # Only now is there another place for the state that the old ones held.
        while self._spent:
            self._spent[-1].unlink(missing_ok=True)
            self._spent.pop()

    def roll(self) -> None:
        """Begin a new journal, and have the settler turn the others into Parquet files; see ``collect``.

        Raises:
            OSError: the disk refused; what is not in Parquet files stays in journals, to be tried again.
        """
        self._set_aside()
        self.begin()
        self.append((), self._last.state)

    def begin(self) -> None:
        """Have the settler turn journals that nobody appends to into Parquet files, where there are any.

        Raises:
            OSError: the disk refused; the next ``roll`` tries again.
        """
        if self._full:
            self._settler.start(self._full)
        self.collect()

    def collect(self, *, wait: bool = False) -> None:
        """Take note of what has become Parquet files; ``wait`` for what is under way.

        Raises:
            OSError: the disk refused them; the next ``roll`` tries again.
        """
        for journal in self._settler.done(wait=wait):
            self._full.remove(journal)
            self._spent.append(journal)

    def finish(self) -> None:
        """Turn every journal into Parquet files, and leave no state: the books are closed.

        Raises:
            OSError: the disk refused; journals stay, state and all.
        """
        self._set_aside()
        self.collect(wait=True)
        self.begin()
        self.collect(wait=True)
        for path in self._spent:
            path.unlink(missing_ok=True)

    def _set_aside(self) -> None:
        if self._journal is not None:
            self._full.append(self._journal.path)
            self._journal.close()
            self._journal = None

    def _stem(self, time_ns: int) -> str:
        # A time sets runs apart even where a container gives each the same boot name and pid.
        return f"{time_ns}-{self._boot}-{os.getpid()}-{next(self._numbers):06d}"


def settle(journal: Path) -> None:
    """Write the Parquet files a journal becomes; those that are there stay, and one that is not there becomes none.

    Raises:
        OSError: the disk refused.
    """
    # One that somebody removed by hand must not hold up the others for ever.
    records = read_journal(journal) if journal.exists() else []
    for date, part in by_date(condensed(entries_of(records))):
        path = parquet_path(journal.parent, date, stem_of(journal))
        if not path.exists():
            _write_date(path, part)


def condensed(entries: Sequence[EnergyEntry]) -> list[EnergyEntry]:
    """Idle neighbours joined; what jobs drew keeps the flush's resolution, by which its warm-up can be told apart."""
    idle = merge([entry for entry in entries if entry.job_id is None])
    booked = [entry for entry in entries if entry.job_id is not None]
    return sorted([*idle, *booked], key=lambda entry: (entry.start_ns, entry.end_ns, entry.job_id or ""))


def by_date(entries: Sequence[EnergyEntry]) -> list[tuple[str, list[EnergyEntry]]]:
    """The entries by the UTC date on which they start."""
    found: dict[str, list[EnergyEntry]] = {}
    for entry in entries:
        found.setdefault(utc_date(entry.start_ns), []).append(entry)
    return sorted(found.items())


def parquet_path(folder: Path, date: str, stem: str) -> Path:
    """The file of one date that a journal of ``stem`` becomes in its node's ``folder``."""
    return folder / f"date={date}" / f"{stem}.parquet"


def _write_date(path: Path, entries: Sequence[EnergyEntry]) -> Path:
    columns: dict[str, Sequence[object]] = {
        "start": [entry.start_ns for entry in entries],
        "end": [entry.end_ns for entry in entries],
        "device": [entry.device for entry in entries],
        "model": [entry.model for entry in entries],
        "kind": [entry.kind for entry in entries],
        "energy_mj": [entry.energy_mj for entry in entries],
        "job_id": [entry.job_id for entry in entries],
        "attempt": [entry.attempt for entry in entries],
        "phase": [entry.phase for entry in entries],
        "share": [entry.share for entry in entries],
        "method": [entry.method for entry in entries],
        "quality": [sorted(entry.quality) for entry in entries],
        "witness_mj": [entry.witness_mj for entry in entries],
    }
    write_atomically(path, columns, SCHEMA)
    return path


def _is_held(journal: Path) -> bool:
    try:
        return is_held(journal)
    except FileNotFoundError:
        return False  # Its writer, which was leaving, has just removed it.


def _records(journal: Path) -> list[Record]:
    try:
        return read_journal(journal)
    except OSError:
        return []  # Tried again at every ``roll``, which says so.


def utc_date(time_ns: int) -> str:
    """The UTC date of a time, as ``YYYY-MM-DD``."""
    return datetime.datetime.fromtimestamp(time_ns // NS_PER_S, tz=datetime.UTC).date().isoformat()
