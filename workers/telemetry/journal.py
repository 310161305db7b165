"""The journal in front of the energy log: what was booked since the last Parquet file, and where the books stood then.

A journal is a hidden file of JSON lines in its node's energy folder, ``.journal-STEM.jsonl``. A line is one *record*,
written whole and pushed to disk: the entries booked since the record before, and the *state* of the agent that booked
them. Entries and state are one line, so that they can never disagree: a line that was torn by a crash is ignored, and
with it both.

A journal names the Parquet files it becomes: its entries of a UTC date are in ``date=DATE/STEM.parquet`` once that
exists, and count there and no longer here. So a crash between writing the one and removing the other doubles nothing.
A journal is locked for as long as its writer lives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.contract import EnergyEntry, Method, Phase, Quality

State = Mapping[str, Any]
"""What an agent must know to go on from a record: JSON, of no concern here."""
Write = Callable[[int, bytes], int]
"""``os.write``: descriptor and bytes to how many of them were written."""
_PREFIX, _SUFFIX = ".journal-", ".jsonl"
_FIELDS = tuple(field.name for field in dataclasses.fields(EnergyEntry))
_READ: Mapping[str, Callable[[Any], object]] = {
    "phase": lambda value: None if value is None else Phase(value),
    "method": Method,
    "quality": lambda value: frozenset(map(Quality, value)),
}
"""How a field that JSON cannot hold is read back; the others are what they were."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One line. ``number`` grows from record to record, over restarts too; a second try bears the number of the first.

    Attributes:
        entries: what was booked since the record before.
        state: the state of the books with these entries booked.
    """

    number: int
    entries: tuple[EnergyEntry, ...]
    state: State


class Journal:
    """A journal that is written to.

    Args:
        folder: the node's energy folder; made if need be.
        stem: the name, without ending, of the Parquet files it becomes.
        write: how bytes get into the file; a test's disk may be full.

    Raises:
        OSError: the disk refuses the file.
    """

    def __init__(self, folder: Path, stem: str, *, write: Write = os.write) -> None:
        self.path, self.stem, self._write = folder / f"{_PREFIX}{stem}{_SUFFIX}", stem, write
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # As on some network file systems; it is tried every second, and must leave nothing behind.
            os.close(self._file)
            self.path.unlink()
            raise
        self._size, self._is_torn = 0, False
        # Some network file systems cannot push a folder to disk; the file is there all the same.
        with contextlib.suppress(OSError):
            _push(folder)

    def append(self, record: Record) -> None:
        """Put a record on disk: all of it, or nothing that a reader would take.

        Raises:
            OSError: the disk refuses it.
        """
        # A line begins anew after a torn one, so that it is not torn with it.
        data = (b"\n" if self._is_torn else b"") + _encode(record)
        try:
            rest = data
            while rest:
                rest = rest[self._write(self._file, rest) :]
            os.fdatasync(self._file)
        except OSError:
            self._is_torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
                self._is_torn = False
            raise
        self._size += len(data)
        self._is_torn = False

    def close(self) -> None:
        """Let go of the file, which stays."""
        os.close(self._file)


def _push(folder: Path) -> None:
    """Make a new name in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def journals_below(folder: Path) -> list[Path]:
    """The journals in ``folder``, and in the nodes' folders right below it, in the order of their names."""
    pattern = f"{_PREFIX}*{_SUFFIX}"
    # The dates' folders hold none, and thousands of files.
    below = [] if folder.name.startswith("node=") else folder.glob(f"*/{pattern}")
    return sorted([*folder.glob(pattern), *below])


def stem_of(journal: Path) -> str:
    """The name, without ending, of the Parquet files a journal becomes."""
    return journal.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def is_held(journal: Path) -> bool:
    """Whether its writer still lives.

    Raises:
        OSError: it cannot be opened.
    """
    file = os.open(journal, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def read_journal(journal: Path) -> list[Record]:
    """Its records in order; torn lines are ignored, and of a record that was tried again the last try counts.

    Raises:
        OSError: it cannot be read.
    """
    records: dict[int, Record] = {}
    for line in journal.read_bytes().split(b"\n"):
        # A line that does not parse was cut short by a crash or a full disk, and was never reported as written.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = _decode(line)
            records[record.number] = record
    return [records[number] for number in sorted(records)]


def _encode(record: Record) -> bytes:
    told = {"number": record.number, "entries": [_plain(entry) for entry in record.entries], "state": record.state}
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def _plain(entry: EnergyEntry) -> dict[str, object]:
    values = {name: getattr(entry, name) for name in _FIELDS}
    return {**values, "quality": sorted(entry.quality)}


def _decode(line: bytes) -> Record:
    told = json.loads(line)
    return Record(
        number=int(told["number"]), entries=tuple(_entry(plain) for plain in told["entries"]), state=dict(told["state"])
    )


def _entry(plain: Mapping[str, Any]) -> EnergyEntry:
    """The entry; a field this version does not know is left out, one that an earlier version did not have is absent."""
    known: dict[str, Any] = {
        name: _READ[name](plain[name]) if name in _READ else plain[name] for name in _FIELDS if name in plain
    }
    return EnergyEntry(**known)


def entries_of(records: Sequence[Record]) -> list[EnergyEntry]:
    """All entries, in the order they were booked."""
    return [entry for record in records for entry in record.entries]
