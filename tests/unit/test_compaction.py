"""Compaction: what it refuses, what it merges, what is left behind, and that readers see every joule once meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.books import compaction
from orchestrator.books.compaction import Compacted, closed_before, compact, compact_day, compact_ledger
from orchestrator.books.database import Books, open_books
from orchestrator.books.refresh import refresh
from tests.unit.ledger import Ledger, at, entry, standard_entries
from tests.unit.test_books import SCHEMA
from workers.contract import EnergyEntry, Phase, Quality
from workers.errors import InputError
from workers.logfolder import COMPACTED, log_files, replaced_by
from workers.parquet import Column, read_folder, write_atomically
from workers.telemetry.energy_read import read_energy, read_energy_logs

NEXT_YEAR = "2025-01-01"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home")


@pytest.fixture
def books(ledger: Ledger) -> Iterator[Books]:
    with open_books(ledger.home) as opened:
        yield opened


def seconds(count: int, first: int = 0, **more: object) -> list[EnergyEntry]:
    """One entry a second of 1 J and one mJ more each, of one phase."""
    return [
        dataclasses.replace(entry(second, second + 1, 1, Phase.TRAIN), energy_mj=1000 + second, **more)
        for second in range(first, first + count)
    ]


def day_of(ledger: Ledger) -> Path:
    (folder,) = ledger.home.energy().glob("node=*/date=*")
    return folder


def book_each(ledger: Ledger, entries: list[EnergyEntry]) -> None:
    for booked in entries:
        ledger.book(booked)


# --- what stays as it is


def test_a_day_that_is_not_closed_is_left_alone(ledger: Ledger, books: Books) -> None:
    book_each(ledger, seconds(3))
    before = closed_before(at(0) + 30 * 3600 * 10**9, older_than_days=1)
    assert before == "2024-01-01"
    assert list(compact(books, before=before)) == []
    assert len(log_files(ledger.home.energy())) == 3


def test_one_file_is_not_compacted_and_nothing_is_done_twice(ledger: Ledger, books: Books) -> None:
    ledger.book(*seconds(3))
    assert list(compact(books, before=NEXT_YEAR)) == []
    ledger.book(*seconds(3, first=3))
    assert len(list(compact(books, before=NEXT_YEAR))) == 1
    assert list(compact(books, before=NEXT_YEAR)) == []


def test_columns_this_version_does_not_know_are_not_thrown_away(ledger: Ledger, books: Books) -> None:
    ledger.book(*seconds(2))
    newer = {**SCHEMA, "witness_mj": Column.INT64, "novelty": Column.TEXT}
    whole = read_folder(ledger.home.energy(), SCHEMA).columns
    write_atomically(day_of(ledger) / "new.parquet", {**whole, "witness_mj": [1, 2], "novelty": ["a", "b"]}, newer)
    (left,) = compact(books, before=NEXT_YEAR)
    assert left.problem == "files have columns this version does not know: novelty. Upgrade first."
    assert len(log_files(ledger.home.energy())) == 2


def test_a_sum_that_no_column_holds_leaves_the_day_as_it_is(ledger: Ledger, books: Books) -> None:
    book_each(ledger, [dataclasses.replace(booked, energy_mj=2**62) for booked in seconds(3)])
    (left,) = compact(books, before=NEXT_YEAR)
    assert left.problem is not None
    assert [booked.energy_mj for booked in read_energy(ledger.home)] == [2**62] * 3


def test_a_torn_file_stays_and_still_tells_that_energy_is_missing(ledger: Ledger, books: Books) -> None:
    book_each(ledger, seconds(3))
    torn = day_of(ledger) / "torn.parquet"
    torn.write_bytes(b"PAR1")
    (done,) = compact(books, before=NEXT_YEAR)
    assert (done.files, done.problem) == (3, None)
    read = read_energy_logs(ledger.home)
    assert sum(booked.energy_mj for booked in read.entries) == 3003
    assert read.lost == {("node-1", "2024-01-01")}
    assert torn.exists()


def test_a_ledger_that_cannot_be_written_is_refused(ledger: Ledger) -> None:
    ledger.book(*seconds(2))
    (ledger.home.root / "derived").write_text("a file where the folder would be")
    with pytest.raises(InputError, match="cannot be written"):
        list(compact_ledger(ledger.home, before=NEXT_YEAR))


# --- what is merged


def test_neighbours_of_one_account_become_one_entry_a_minute(ledger: Ledger, books: Books) -> None:
    book_each(ledger, seconds(150))
    (done,) = compact(books, before=NEXT_YEAR)
    assert (done.node, done.date, done.files, done.entries, done.entries_left) == ("node-1", "2024-01-01", 150, 150, 3)
    assert done.bytes_left < done.bytes
    expected = [
        (at(first), at(last), sum(1000 + second for second in range(first, last)))
        for first, last in ((0, 60), (60, 120), (120, 150))
    ]
    assert [(e.start_ns, e.end_ns, e.energy_mj) for e in read_energy(ledger.home)] == expected


@pytest.mark.parametrize(
    "other",
    [
        {"job_id": "k"},
        {"attempt": 2},
        {"phase": Phase.EVALUATE},
        {"device": "GPU-b"},
        {"share": 0.5},
        {"quality": frozenset({Quality.GAP})},
        {"model": "L4"},
    ],
)
def test_what_a_figure_could_tell_apart_stays_apart(ledger: Ledger, books: Books, other: dict[str, object]) -> None:
    booked = [*seconds(2), *seconds(2, first=2, **other)]
    book_each(ledger, booked)
    list(compact(books, before=NEXT_YEAR))
    assert [e.energy_mj for e in read_energy(ledger.home)] == [2001, 2005]


def test_gaps_and_edges_of_minutes_and_entries_without_a_phase_stay(ledger: Ledger, books: Books) -> None:
    gap = [entry(0, 1, 1, Phase.TRAIN), entry(2, 3, 1, Phase.TRAIN)]
    edge = [entry(59.5, 60.5, 1, Phase.TRAIN), entry(60.5, 61, 1, Phase.TRAIN)]
    unphased = [entry(100, 101, 1), entry(101, 102, 1)]
    book_each(ledger, [*gap, *edge, *unphased])
    list(compact(books, before=NEXT_YEAR))
    assert read_energy(ledger.home) == (*gap, *edge, *unphased)


def test_a_witness_is_added_up_where_there_is_one(ledger: Ledger, books: Books) -> None:
    ledger.book(*seconds(2))
    whole = read_folder(ledger.home.energy(), SCHEMA).columns
    shifted = {**whole, "start": [at(2), at(3)], "end": [at(3), at(4)], "witness_mj": [7, 8]}
    write_atomically(day_of(ledger) / "new.parquet", shifted, {**SCHEMA, "witness_mj": Column.INT64})
    list(compact(books, before=NEXT_YEAR))
    (path,) = log_files(ledger.home.energy())
    assert pq.read_table(path, columns=["energy_mj", "witness_mj"]).to_pylist() == [
        {"energy_mj": 2001, "witness_mj": None},
        {"energy_mj": 2001, "witness_mj": 15},
    ]


# --- crashes, late files, copies


def test_inputs_that_a_crash_left_behind_do_not_count_and_the_next_compaction_removes_them(
    ledger: Ledger, books: Books
) -> None:
    book_each(ledger, seconds(4))
    steps = compact_day(books, day_of(ledger))
    told = [next(steps) for _ in range(3)]
    assert [str(step).split()[0] for step in told] == ["wrote", "published", "removed"]
    assert len(list(day_of(ledger).glob("*.parquet"))) == 4
    assert sum(e.energy_mj for e in read_energy(ledger.home)) == 4006
    refresh(books)
    assert books.rows("SELECT count(*) FROM files") == [(1,)]
    assert list(compact(books, before=NEXT_YEAR)) == []
    assert len(list(day_of(ledger).iterdir())) == 1


def test_what_was_never_published_is_removed(ledger: Ledger, books: Books) -> None:
    book_each(ledger, seconds(4))
    next(compact_day(books, day_of(ledger)))
    assert len(list(day_of(ledger).glob(".*"))) == 1
    list(compact(books, before=NEXT_YEAR))
    assert [path.name.startswith(COMPACTED) for path in day_of(ledger).iterdir()] == [True]


def test_a_late_file_is_compacted_with_the_compacted_one_which_stands_for_all_that_went_before(
    ledger: Ledger, books: Books
) -> None:
    book_each(ledger, seconds(3))
    early = {path.name: path.read_bytes() for path in log_files(ledger.home.energy())}
    list(compact(books, before=NEXT_YEAR))
    book_each(ledger, seconds(1, first=3))
    list(compact(books, before=NEXT_YEAR))
    (path,) = log_files(ledger.home.energy())
    assert early.keys() < replaced_by(path)
    for name, content in early.items():  # a copy that was kept elsewhere comes back
        (path.parent / name).write_bytes(content)
    assert log_files(ledger.home.energy()) == (path,)
    assert sum(e.energy_mj for e in read_energy(ledger.home)) == 4006


def test_a_compacted_file_that_is_torn_stands_for_nothing(ledger: Ledger, books: Books) -> None:
    book_each(ledger, seconds(3))
    steps = compact_day(books, day_of(ledger))
    assert [str(next(steps)).split()[0] for _ in range(2)] == ["wrote", "published"]
    (compacted,) = day_of(ledger).glob(f"{COMPACTED}*")
    compacted.write_bytes(compacted.read_bytes()[:100])
    read = read_energy_logs(ledger.home)
    assert sum(e.energy_mj for e in read.entries) == 3003
    assert read.lost == {("node-1", "2024-01-01")}


def test_the_standard_job_costs_the_same_compacted(ledger: Ledger, books: Books) -> None:
    book_each(ledger, standard_entries())
    before = read_energy(ledger.home)
    (done,) = compact(books, before=NEXT_YEAR)
    assert isinstance(done, Compacted)
    assert read_energy(ledger.home) == before


def test_a_day_of_very_many_files_is_merged_in_rounds(
    ledger: Ledger, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MOST_FILES", 3)
    book_each(ledger, seconds(8))
    (done,) = compact(books, before=NEXT_YEAR)
    assert (done.files, done.entries, done.entries_left) == (8, 8, 1)
    assert len(list(day_of(ledger).iterdir())) == 1
    assert sum(e.energy_mj for e in read_energy(ledger.home)) == 8028
