"""A disk that refuses costs no joule, no metering, and no more memory than it may."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest

from tests.metering import energy_by_job
from tests.unit.test_journal import MIDNIGHT_NS, FullDisk, entry, merged
from workers.contract import EnergyEntry
from workers.errors import MeterError
from workers.home import Home
from workers.telemetry.bookkeeper import Bookkeeper, bounded
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import read_energy
from workers.telemetry.journal import journals_below
from workers.units import NS_PER_S


class Desk:
    """A bookkeeper whose clock and disk a test moves; entries in ``booked`` are handed over at the next flush."""

    def __init__(self, root: Path, *, kept: int = 1000) -> None:
        self.home, self.now_s, self.disk = Home(root), 10.0, FullDisk(10**9)
        self.booked: list[EnergyEntry] = []
        log = EnergyLog(self.home.energy("n"), boot="b", clock_ns=self.clock_ns, write=self.disk)
        self.keeper = Bookkeeper(
            log,
            self.take,
            roll_s=60,
            remedy="make room.",
            clock_ns=self.clock_ns,
            monotonic_s=lambda: self.now_s,
            kept=kept,
        )

    def clock_ns(self) -> int:
        return MIDNIGHT_NS + int(self.now_s * NS_PER_S)

    def take(self) -> tuple[list[EnergyEntry], dict[str, object]]:
        taken, self.booked = self.booked, []
        return taken, {"at": self.now_s}

    def second(self, **changes: object) -> None:
        """A second passes, is booked and written."""
        self.booked.append(dataclasses.replace(entry(self.now_s), **changes))
        self.now_s += 1
        self.keeper.write()

    def minute(self) -> None:
        """A minute passes in which nothing is booked, and it is time for a Parquet file."""
        self.now_s += 60
        self.keeper.write()

    def parquet_files(self) -> int:
        return len(list(self.home.energy("n").rglob("*.parquet")))


def test_a_full_disk_is_said_once_counted_each_time_and_made_up_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path)
    desk.second()
    desk.disk.free = 10
    for _ in range(5):
        desk.second()
    assert desk.keeper.write_errors == 5
    assert capsys.readouterr().err == (
        "the energy log cannot be written: [Errno 28] No space left on device. "
        "Its entries are kept in memory and tried again; make room.\n"
    )
    with pytest.raises(MeterError, match="No space left on device"):
        desk.keeper.flush()
    assert read_energy(desk.home) == (entry(10),)
    desk.disk.free = 10**9
    desk.second()
    assert read_energy(desk.home) == (entry(10), merged(11, 6, 30))
    assert desk.keeper.write_errors == 6


def test_entries_that_the_disk_refuses_for_long_are_merged_and_their_energy_is_exact(tmp_path: Path) -> None:
    desk = Desk(tmp_path, kept=20)
    desk.disk.free = 0
    for number in range(500):
        desk.second(energy_mj=number, job_id="ab"[number % 2], share=1 / (1 + number % 3))
    desk.disk.free = 10**9
    desk.keeper.flush()
    read = read_energy(desk.home)
    assert energy_by_job(read) == {"a": sum(range(0, 500, 2)), "b": sum(range(1, 500, 2))}
    assert len(read) <= 20


def test_entries_that_could_never_be_written_are_named_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path)
    desk.disk.free = 0
    desk.second(energy_mj=1500)
    desk.keeper.finish()
    assert capsys.readouterr().err.splitlines()[-1] == (
        "1.5 J could not be written to the energy log and are lost with this agent"
    )


def test_standard_error_on_the_same_full_disk_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullFile:
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    desk = Desk(tmp_path)
    desk.disk.free = 0
    monkeypatch.setattr("sys.stderr", FullFile())
    desk.second()
    assert desk.keeper.write_errors == 1


def test_a_journal_that_cannot_become_a_parquet_file_stays_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path)
    desk.home.energy("n").mkdir(parents=True)
    (desk.home.energy("n") / "date=2024-01-01").write_text("in the way")
    desk.second()
    desk.minute()
    assert "the energy log's journal cannot become a Parquet file, and stays: " in capsys.readouterr().err
    assert read_energy(desk.home) == (entry(10),)
    desk.second()
    (desk.home.energy("n") / "date=2024-01-01").unlink()
    desk.minute()
    assert energy_by_job(read_energy(desk.home)) == {"j": 10}
    assert (desk.parquet_files(), len(journals_below(desk.home.energy("n")))) == (2, 1)


def test_seconds_go_to_a_journal_and_minutes_to_parquet_files(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    made = []
    for _ in range(180):
        desk.second()
        made.append(desk.parquet_files())
    assert made[58:60] == [0, 1]
    assert made[-1] == 3
    assert sum(e.energy_mj for e in read_energy(desk.home)) == 180 * 5


def test_a_new_date_begins_a_new_file(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.now_s = 86_395
    for _ in range(6):
        desk.second()
    desk.minute()
    names = {path.parent.name for path in desk.home.energy("n").rglob("*.parquet")}
    assert names == {"date=2024-01-01", "date=2024-01-02"}


def test_few_entries_are_left_as_they_are_and_many_become_one_per_account() -> None:
    booked = [entry(1), entry(5), entry(9, job_id=None)]
    assert bounded(booked, 3) == booked
    first = dataclasses.replace(entry(1, energy_mj=10), end_ns=entry(5).end_ns, share=2 / 5)
    assert bounded(booked, 2) == [first, entry(9, job_id=None)]
