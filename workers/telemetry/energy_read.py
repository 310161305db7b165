"""Reads energy logs: Parquet files, and the journals that have not become any yet, each entry once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.home import Home
from workers.parquet import partition_labels, read_folder
from workers.telemetry.energy_log import LATER, SCHEMA, by_date, condensed, parquet_path, utc_date
from workers.telemetry.journal import entries_of, journals_below, read_journal, stem_of
from workers.units import NS_PER_US


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
    folder = home.energy(node)
    # Journals first: what becomes a Parquet file while we look is then seen in both, and never in neither.
    journals = read_journals(folder)
    read = read_folder(folder, SCHEMA, partitions=("node", "date"), wanted=wanted, where=where, optional=LATER)
    node_of = dict(zip(read.columns["device"], read.columns["node"], strict=True))
    entries = _entries(read.columns)
    for path, date, entry in journalled(journals, counted=read.readable):
        if wanted({"date": date}) and (job_ids is None or entry.job_id in job_ids):
            entries.append(entry)
            node_of[entry.device] = partition_labels(path)["node"]
    entries.sort(key=lambda entry: (entry.start_ns, entry.device))
    return EnergyRead(entries=tuple(entries), node_of=node_of, lost=lost_days((*read.unreadable, *journals.unreadable)))


@dataclass(frozen=True, kw_only=True)
class FolderRead:
    """What was read of a folder: ``entries`` in order of start, and the files that are torn."""

    entries: tuple[EnergyEntry, ...]
    unreadable: tuple[Path, ...]


def read_energy_folder(folder: Path) -> FolderRead:
    """Every entry below any folder, wherever it came from; one that is not there reads as empty."""
    journals = read_journals(folder)
    read = read_folder(folder, SCHEMA, optional=LATER)
    entries = [*_entries(read.columns), *(entry for _, _, entry in journalled(journals, counted=read.readable))]
    entries.sort(key=lambda entry: (entry.start_ns, entry.device))
    return FolderRead(entries=tuple(entries), unreadable=(*read.unreadable, *journals.unreadable))


@dataclass(frozen=True, kw_only=True)
class Journals:
    """What was read of journals: each one's entries by date, as its Parquet files would hold them."""

    entries: Mapping[Path, Sequence[tuple[str, list[EnergyEntry]]]]
    unreadable: tuple[Path, ...]


def read_journals(folder: Path) -> Journals:
    """The journals below ``folder``. Read them before the Parquet files that they become, so that nothing is missed."""
    entries, unreadable = {}, []
    for path in journals_below(folder):
        try:
            entries[path] = by_date(condensed(entries_of(read_journal(path))))
        except FileNotFoundError:
            continue  # It has become a Parquet file since it was listed.
        except OSError:
            unreadable.append(path)
    return Journals(entries=entries, unreadable=tuple(unreadable))


def journalled(journals: Journals, *, counted: Collection[Path]) -> Iterator[tuple[Path, str, EnergyEntry]]:
    """Entries of journals that are in none of the Parquet files ``counted``; each with its journal and date."""
    read = set(counted)
    for path, dates in journals.entries.items():
        for date, entries in dates:
            if parquet_path(path.parent, date, stem_of(path)) not in read:
                for entry in entries:
                    yield path, date, replace(entry, start_ns=_to_us(entry.start_ns), end_ns=_to_us(entry.end_ns))


def _to_us(time_ns: int) -> int:
    """The nearest microsecond, in ns, as the log keeps it."""
    return (time_ns + NS_PER_US // 2) // NS_PER_US * NS_PER_US


def _entries(columns: Mapping[str, Sequence[Any]]) -> list[EnergyEntry]:
    return [_entry(*row) for row in zip(*(columns[name] for name in SCHEMA), strict=True)]


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


def lost_days(unreadable: Sequence[Path]) -> frozenset[tuple[str, str]]:
    """``(node, UTC date)`` of files and journals that cannot be read."""
    found = [(partition_labels(path), path) for path in unreadable]
    return frozenset(
        # A journal is of one date as a rule: that on which it begins, which its name begins with.
        (labels["node"], labels.get("date") or utc_date(int(stem_of(path).partition("-")[0])))
        for labels, path in found
        if "node" in labels
    )
