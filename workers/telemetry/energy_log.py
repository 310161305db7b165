"""The energy log: every joule a node's devices drew, booked once. One row is one ``EnergyEntry``.

Energy is exact (integer millijoules); times are kept to the microsecond.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.errors import InputError
from workers.home import Home
from workers.parquet import Column, partition_labels, read_folder, write_atomically
from workers.units import NS_PER_S

_SCHEMA = {
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
_LATER = ("witness_mj",)
"""Columns that logs of earlier versions lack; there they read as null."""


class EnergyLog:
    """Writes one node's energy log.

    Args:
        folder: ``Home.energy(node)``; made at the first write.
        boot: names this run of the agent, so that files of different runs never meet (letters, digits, ``.``, ``_``,
            ``-``).

    Raises:
        InputError: ``boot`` does not fit a file name.
    """

    def __init__(self, folder: Path, *, boot: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", boot):
            raise InputError(f"{boot!r} cannot name a run of the agent: use letters, digits, '.', '_' or '-'.")
        self._folder, self._boot = folder, boot
        self._numbers = itertools.count()

    def write(self, entries: Sequence[EnergyEntry]) -> tuple[Path, ...]:
        """Write ``entries``, one file for each UTC date on which some of them start; no entries, no file.

        All or nothing: a caller that keeps the entries of a write that failed, and writes them again, books them once.

        Raises:
            OSError: the disk refused.
        """
        by_date: dict[str, list[EnergyEntry]] = {}
        for entry in entries:
            by_date.setdefault(utc_date(entry.start_ns), []).append(entry)
        written: list[Path] = []
        try:
            for date, part in sorted(by_date.items()):
                written.append(self._write_date(date, part))
        except OSError:
            for path in written:
                path.unlink()
            raise
        return tuple(written)

    def _write_date(self, date: str, entries: Sequence[EnergyEntry]) -> Path:
        # The first entry's start sets runs apart even where a container gives each the same boot name and pid.
        name = f"{entries[0].start_ns}-{self._boot}-{os.getpid()}-{next(self._numbers):06d}.parquet"
        path = self._folder / f"date={date}" / name
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
        write_atomically(path, columns, _SCHEMA)
        return path


@dataclass(frozen=True, kw_only=True)
class EnergyRead:
    """What was read of the energy logs.

    Attributes:
        entries: in order of start.
        node_of: device UUID to the node that metered it, for every device of ``entries``.
        lost: ``(node, UTC date)`` of which a file could not be read: energy of that day may be missing.
    """

    entries: tuple[EnergyEntry, ...]
    node_of: Mapping[str, str]
    lost: frozenset[tuple[str, str]]


def read_energy(
    home: Home, *, job_ids: Collection[str] | None = None, node: str | None = None
) -> tuple[EnergyEntry, ...]:
    """Entries in order of start: all, or those of some jobs, or of one node. Torn files are ignored.

    Raises:
        InputError: ``node`` cannot be a node's name.
    """
    return read_energy_logs(home, job_ids=job_ids, node=node).entries


def read_energy_logs(
    home: Home,
    *,
    job_ids: Collection[str] | None = None,
    node: str | None = None,
    days: tuple[str, str] | None = None,
) -> EnergyRead:
    """The same entries, with the nodes they came from and the days whose files are torn.

    Args:
        home: whose logs.
        job_ids: jobs to keep; ``None`` for all, and idle.
        node: the one node to read; ``None`` for all.
        days: first and last UTC date (``YYYY-MM-DD``) whose files are opened; ``None`` for all.

    Raises:
        InputError: ``node`` cannot be a node's name.
    """

    def wanted(labels: Mapping[str, str]) -> bool:
        return days is None or days[0] <= labels.get("date", days[0]) <= days[1]

    where = None if job_ids is None else {"job_id": job_ids}
    read = read_folder(
        home.energy(node), _SCHEMA, partitions=("node", "date"), wanted=wanted, where=where, optional=_LATER
    )
    entries = sorted(_entries(read.columns), key=lambda entry: (entry.start_ns, entry.device))
    return EnergyRead(
        entries=tuple(entries),
        node_of=dict(zip(read.columns["device"], read.columns["node"], strict=True)),
        lost=_lost(read.unreadable),
    )


@dataclass(frozen=True, kw_only=True)
class FolderRead:
    """What was read of a folder: ``entries`` in order of start, and the files that are torn."""

    entries: tuple[EnergyEntry, ...]
    unreadable: tuple[Path, ...]


def read_energy_folder(folder: Path) -> FolderRead:
    """Every entry below any folder, wherever it came from; one that is not there reads as empty."""
    read = read_folder(folder, _SCHEMA, optional=_LATER)
    entries = sorted(_entries(read.columns), key=lambda entry: (entry.start_ns, entry.device))
    return FolderRead(entries=tuple(entries), unreadable=read.unreadable)


def _entries(columns: Mapping[str, Sequence[Any]]) -> list[EnergyEntry]:
    return [_entry(*row) for row in zip(*(columns[name] for name in _SCHEMA), strict=True)]


def _entry(
    start: int,
    end: int,
    device: str,
    model: str,
    kind: str,
    energy_mj: int,
    job_id: str | None,
    attempt: int | None,
    phase: str | None,
    share: float,
    method: str,
    quality: Sequence[str],
    witness_mj: int | None,
) -> EnergyEntry:
    """A row, in the order of the schema."""
    return EnergyEntry(
        start_ns=start,
        end_ns=end,
        device=device,
        model=model,
        kind=kind,
        energy_mj=energy_mj,
        job_id=job_id,
        attempt=attempt,
        phase=None if phase is None else Phase(phase),
        share=share,
        method=Method(method),
        quality=frozenset(map(Quality, quality)),
        witness_mj=witness_mj,
    )


def _lost(unreadable: Sequence[Path]) -> frozenset[tuple[str, str]]:
    labels = [partition_labels(path) for path in unreadable]
    return frozenset((found["node"], found["date"]) for found in labels if {"node", "date"} <= found.keys())


def utc_date(time_ns: int) -> str:
    """The UTC date of a time, as ``YYYY-MM-DD``."""
    return datetime.datetime.fromtimestamp(time_ns // NS_PER_S, tz=datetime.UTC).date().isoformat()
