"""The journal in front of the energy log: a crash at any byte of it loses nothing that was said to be written."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.errors import InputError
from workers.home import Home
from workers.telemetry import energy_log
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import read_energy, read_energy_folder, read_energy_logs
from workers.telemetry.journal import Journal, Record, entries_of, journals_below, read_journal
from workers.units import NS_PER_S

MIDNIGHT_NS = 1_704_067_200 * NS_PER_S
"""2024-01-01T00:00:00Z."""


def entry(start_s: float, *, job_id: str | None = "j", energy_mj: int = 5) -> EnergyEntry:
    start_ns = MIDNIGHT_NS + int(start_s * NS_PER_S)
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=start_ns + NS_PER_S,
        device="GPU-a",
        model="T4",
        kind="gpu",
        energy_mj=energy_mj,
        job_id=job_id,
        attempt=None if job_id is None else 1,
        phase=None if job_id is None else Phase.TRAIN,
        share=1.0,
        method=Method.COUNTER,
        quality=frozenset(),
    )


def merged(start_s: float, seconds: int, energy_mj: int, *, job_id: str | None = "j") -> EnergyEntry:
    first = entry(start_s, energy_mj=energy_mj, job_id=job_id)
    return dataclasses.replace(first, end_ns=first.start_ns + seconds * NS_PER_S)


def test_a_file_system_without_locks_is_an_error_that_leaves_no_file_open_and_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No locks available"):
        Journal(tmp_path, "stem")
    assert (len(list(Path("/proc/self/fd").iterdir())), list(tmp_path.iterdir())) == (before, [])


class FullDisk:
    """A disk on which so many bytes are free."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, file: int, data: bytes) -> int:
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(file, data[: self.free])
        self.free -= written
        return written


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def log_of(home: Home, boot: str = "b", now_s: float = 10, **more: object) -> EnergyLog:
    return EnergyLog(home.energy("n"), boot=boot, clock_ns=lambda: MIDNIGHT_NS + int(now_s * NS_PER_S), **more)


def files(home: Home) -> list[str]:
    """What is in the node's folder, by what it is."""
    return sorted(path.suffix for path in home.energy("n").rglob("*") if path.is_file())


def test_every_field_of_an_entry_survives_the_journal(tmp_path: Path) -> None:
    flags = frozenset({Quality.GAP, Quality.RESET})
    flagged = dataclasses.replace(entry(1.25, energy_mj=2**62), quality=flags, share=0.1, method=Method.SIMULATED)
    journal = Journal(tmp_path, "s")
    written = [
        Record(number=1, entries=(flagged, entry(2, job_id=None)), state={"a": [1, None]}),
        Record(number=2, entries=(), state={}),
    ]
    for record in written:
        journal.append(record)
    journal.close()
    assert read_journal(journal.path) == written


def test_a_line_cut_anywhere_is_no_line_and_the_ones_before_it_stand(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.append(Record(number=1, entries=(entry(1),), state={"at": 1}))
    whole = journal.path.stat().st_size
    journal.append(Record(number=2, entries=(entry(2),), state={"at": 2}))
    journal.close()
    data = journal.path.read_bytes()
    for cut in range(whole, len(data) - 1):
        journal.path.write_bytes(data[:cut])
        assert [record.number for record in read_journal(journal.path)] == [1]


@pytest.mark.parametrize("free", [0, 1, 100])
def test_a_full_disk_takes_a_record_whole_or_not_at_all(tmp_path: Path, free: int) -> None:
    disk = FullDisk(10_000)
    journal = Journal(tmp_path, "s", write=disk)
    journal.append(Record(number=1, entries=(entry(1),), state={}))
    disk.free = free
    with pytest.raises(OSError, match="No space left on device"):
        journal.append(Record(number=2, entries=(entry(2),), state={}))
    assert [record.number for record in read_journal(journal.path)] == [1]
    disk.free = 10_000
    journal.append(Record(number=2, entries=(entry(2), entry(3)), state={}))
    journal.close()
    assert entries_of(read_journal(journal.path)) == [entry(1), entry(2), entry(3)]


def test_a_torn_line_that_cannot_be_taken_back_does_not_tear_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(50)
    journal = Journal(tmp_path, "s", write=disk)
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", FullDisk(0))
        with pytest.raises(OSError, match="No space left"):
            journal.append(Record(number=1, entries=(entry(1),), state={}))
    disk.free = 10_000
    journal.append(Record(number=1, entries=(entry(1), entry(2)), state={}))
    journal.close()
    assert entries_of(read_journal(journal.path)) == [entry(1), entry(2)]


def test_a_record_that_was_written_but_not_pushed_counts_once_when_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, "s")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            journal.append(Record(number=1, entries=(entry(1),), state={}))
    journal.append(Record(number=1, entries=(entry(1), entry(2)), state={}))
    journal.close()
    assert entries_of(read_journal(journal.path)) == [entry(1), entry(2)]


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel lets this process write no file beyond 2,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_kernel_that_takes_no_more_leaves_what_was_taken(home: Home) -> None:
    log = log_of(home)
    for second in range(4):
        log.append([entry(2 * second)], {})
    many = [entry(2 * second) for second in range(4, 20)]
    with pytest.raises(OSError, match="File too large"):
        log.append(many, {})
    assert read_energy(home) == tuple(entry(2 * second) for second in range(4))


def test_what_a_killed_agent_left_is_read_as_its_parquet_file_would_be(home: Home) -> None:
    log = log_of(home)
    log.append([entry(1)], {})
    log.append([entry(2), entry(9, job_id=None)], {})
    left = read_energy_logs(home)
    assert left.entries == (entry(1), entry(2), entry(9, job_id=None))
    assert left.node_of == {"GPU-a": "n"}
    assert read_energy(home, job_ids=["j"]) == (entry(1), entry(2))
    assert read_energy_logs(home, days=("2024-01-02", "2024-01-03")).entries == ()
    assert read_energy_folder(home.energy("n")).entries == left.entries
    log.roll()
    assert files(home) == [".jsonl", ".parquet"]
    assert read_energy_logs(home) == left


def test_times_read_from_a_journal_are_those_the_parquet_file_will_have(home: Home) -> None:
    odd = dataclasses.replace(entry(0), start_ns=MIDNIGHT_NS - 400, end_ns=MIDNIGHT_NS + 2_600)
    log = log_of(home)
    log.append([odd], {})
    before = read_energy(home)
    log.roll()
    assert read_energy(home) == before
    assert [path.parent.name for path in home.energy("n").rglob("*.parquet")] == ["date=2023-12-31"]


def test_a_crash_between_the_parquet_file_and_the_journals_end_doubles_nothing(home: Home) -> None:
    log = log_of(home)
    log.append([entry(1)], {"at": 1})
    (journal,) = journals_below(home.energy("n"))
    kept = journal.read_bytes()
    log.roll()
    journal.write_bytes(kept)
    assert read_energy(home) == (entry(1),)
    log.finish()
    again = log_of(home, "c")
    assert again.recover() == {"at": 1}
    again.append([entry(2)], {"at": 2})
    again.finish()
    assert read_energy(home) == (entry(1), entry(2))
    assert files(home) == [".parquet", ".parquet"]


def test_a_crash_between_two_dates_parquet_files_completes_the_second(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(home)
    log.append([entry(-5), entry(5)], {})
    real = energy_log.write_atomically

    def refuse_the_second(path: Path, columns: object, schema: object) -> None:
        if "2024-01-01" in str(path):
            raise OSError("disk full")
        real(path, columns, schema)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(energy_log, "write_atomically", refuse_the_second)
        with pytest.raises(OSError, match="disk full"):
            log.roll()
    assert read_energy(home) == (entry(-5), entry(5))
    log.append([entry(7)], {})
    assert read_energy(home) == (entry(-5), entry(5), entry(7))
    log.finish()
    assert read_energy(home) == (entry(-5), entry(5), entry(7))
    assert files(home) == [".parquet"] * 3


def test_a_parquet_file_that_is_torn_is_read_from_its_journal_while_that_is_there(home: Home) -> None:
    log = log_of(home)
    log.append([entry(1)], {})
    (journal,) = journals_below(home.energy("n"))
    torn = home.energy("n") / "date=2024-01-01" / f"{journal.stem.removeprefix('.journal-')}.parquet"
    torn.parent.mkdir()
    torn.write_bytes(b"PAR1")
    read = read_energy_logs(home)
    assert (read.entries, read.lost) == ((entry(1),), {("n", "2024-01-01")})


def test_a_new_agent_makes_parquet_files_of_what_a_killed_one_left_and_knows_its_last_state(home: Home) -> None:
    killed = log_of(home, "b")
    killed.append([entry(1)], {"at": 1})
    killed.append([entry(2)], {"at": 2})
    killed.finish()
    (parquet,) = home.energy("n").rglob("*.parquet")
    parquet.unlink()
    leave_journal(home, "b", [Record(number=7, entries=(entry(1),), state={"at": 7})])
    leave_journal(home, "a", [Record(number=8, entries=(entry(2),), state={"at": 8})])
    successor = log_of(home, "c")
    assert successor.recover() == {"at": 8}
    successor.append([entry(3)], {"at": 9})
    assert read_energy(home) == (entry(1), entry(2), entry(3))
    successor.roll()
    assert files(home) == [".jsonl"] + [".parquet"] * 3
    assert read_energy(home) == (entry(1), entry(2), entry(3))
    (journal,) = journals_below(home.energy("n"))
    assert [(record.number, record.state) for record in read_journal(journal)] == [(10, {"at": 9})]


def leave_journal(home: Home, boot: str, records: list[Record]) -> None:
    journal = Journal(home.energy("n"), f"{MIDNIGHT_NS}-{boot}-1-000000")
    for record in records:
        journal.append(record)
    journal.close()


def test_a_state_is_never_nowhere_even_when_the_disk_fills_up_at_the_roll(home: Home) -> None:
    disk = FullDisk(10_000)
    log = log_of(home, write=disk)
    log.append([entry(1)], {"at": 1})
    disk.free = 0
    with pytest.raises(OSError, match="No space left"):
        log.roll()
    assert read_energy(home) == (entry(1),)
    states = [record.state for path in journals_below(home.energy("n")) for record in read_journal(path)]
    assert states == [{"at": 1}]
    disk.free = 10_000
    log.append([entry(2)], {"at": 2})
    states = [record.state for path in journals_below(home.energy("n")) for record in read_journal(path)]
    assert states == [{"at": 2}]
    assert read_energy(home) == (entry(1), entry(2))


def test_a_node_whose_log_another_agent_writes_is_refused(home: Home) -> None:
    log = log_of(home)
    log.append([entry(1)], {})
    with pytest.raises(InputError, match=r"an agent of this node already writes .*\. Lease from it, or stop it first"):
        log_of(home, "c").recover(timeout_s=0)
    log.finish()
    assert log_of(home, "c").recover(timeout_s=0) is None


def test_a_log_that_is_finished_leaves_parquet_files_alone(home: Home) -> None:
    log = log_of(home)
    for second in range(1, 61):
        log.append([entry(second)], {"at": second})
    log.finish()
    assert read_energy(home) == tuple(entry(second) for second in range(1, 61))
    assert files(home) == [".parquet"]


def test_idle_takes_one_row_however_often_it_was_flushed(home: Home) -> None:
    log = log_of(home)
    for second in range(1, 61):
        log.append([entry(second, job_id=None)], {})
    log.finish()
    (path,) = home.energy("n").rglob("*.parquet")
    assert pq.read_metadata(path).num_rows == 1
    assert read_energy(home) == (merged(1, 60, 300, job_id=None),)
