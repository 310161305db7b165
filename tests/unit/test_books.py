"""The derived database: what is read of a bad ledger, what is made anew, and that only what is new costs anything."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.accounting.rollup import DIMENSIONS, RollupRow, job_hours, rollup
from orchestrator.books.compaction import compact
from orchestrator.books.database import Books, database_path, open_books
from orchestrator.books.refresh import BATCH_FILES, refresh
from orchestrator.lifecycle import JobState
from orchestrator.store import RunRecord, Store
from tests.unit.ledger import Ledger, at, attempt, entry, job, standard_entries
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.errors import InputError, UnknownNameError, UnreachableError, WattledgerError
from workers.home import Home
from workers.parquet import Column, write_atomically
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import read_energy
from workers.units import NS_PER_S

HOUR_S = 3600
SCHEMA = {
    "start": Column.TIME,
    "end": Column.TIME,
    **dict.fromkeys(("device", "model", "kind"), Column.TEXT),
    "energy_mj": Column.INT64,
    "job_id": Column.TEXT,
    "attempt": Column.INT32,
    "phase": Column.TEXT,
    "share": Column.FLOAT64,
    "method": Column.TEXT,
    "quality": Column.TEXTS,
}
"""The columns of the energy log."""
NOON_HOUR = at(0) // (HOUR_S * NS_PER_S)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home")


@pytest.fixture
def books(ledger: Ledger) -> Iterator[Books]:
    with open_books(ledger.home) as opened:
        yield opened


def submit(home: Home, *names: str) -> None:
    run = RunRecord(run_id="-".join(names), name="study", manifest="", submitted_ns=at(-60), host="h", pid=1)
    with contextlib.closing(Store(home.state_db)) as store:
        store.submit(run, [job(job_id=name).spec for name in names])


def run_once(home: Home, name: str, state: JobState) -> None:
    with contextlib.closing(Store(home.state_db)) as store:
        store.start_attempt(name, nodes=("node-1",), accelerator="T4", now_ns=at(-1))
        store.end_attempt(name, 1, state=state, reason=None, then=state, now_ns=at(15))


def idle(start_s: float, end_s: float, joules: float) -> EnergyEntry:
    booked = entry(start_s, end_s, joules)
    return EnergyEntry(
        **{
            name: getattr(booked, name)
            for name in EnergyEntry.__slots__
            if name not in {"job_id", "attempt", "share", "phase"}
        },
        job_id=None,
        attempt=None,
        phase=None,
        share=1.0,
    )


def total_mj(books: Books) -> int:
    return sum(row.energy_mj for row in rollup(books))


def only(rows: tuple[RollupRow, ...]) -> RollupRow:
    (row,) = rows
    return row


# --- bad data


def torn(ledger: Ledger, node: str = "node-1", date: str = "2024-01-01") -> Path:
    path = ledger.home.energy(node) / f"date={date}" / "torn.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 and no more")
    return path


def test_a_torn_file_is_recorded_with_its_day_and_costs_no_other_file_anything(ledger: Ledger, books: Books) -> None:
    for number in range(5):
        ledger.book(entry(number, number + 1, 10))
    torn(ledger)
    assert refresh(books).unreadable == 1
    assert total_mj(books) == 50_000
    ((path, node, date, problem),) = books.rows("SELECT path, node, date, problem FROM main.files WHERE problem <> ''")
    assert (Path(path).name, node, date) == ("torn.parquet", "node-1", "2024-01-01")
    assert "No magic bytes" in problem


def test_a_torn_file_is_tried_again_only_when_it_changes(ledger: Ledger, books: Books) -> None:
    ledger.book(*standard_entries())
    (whole,) = ledger.home.energy().rglob("*.parquet")
    path = torn(ledger)
    refresh(books)
    assert (refresh(books).summed, refresh(books).forgotten) == (0, 0)
    path.write_bytes(whole.read_bytes())
    assert refresh(books).unreadable == 0
    assert total_mj(books) == 2 * 3_600_000


@pytest.mark.parametrize("column", ["device", "energy_mj", "method"])
def test_a_file_without_a_column_or_a_value_of_it_is_unreadable_not_nothing(
    ledger: Ledger, books: Books, column: str
) -> None:

    ledger.book(entry(0, 1, 10))
    nobodys = {name: [None] for name in SCHEMA} | {"start": [at(0)], "end": [at(1)], "quality": [[]]}
    values = nobodys | {
        "device": ["d"],
        "model": ["T4"],
        "kind": ["gpu"],
        "energy_mj": [5],
        "share": [1.0],
        "method": ["counter"],
    }
    folder = ledger.home.energy("node-1") / "date=2024-01-01"
    write_atomically(folder / "null.parquet", values | {column: [None]}, SCHEMA)
    del values[column]
    write_atomically(folder / "lacks.parquet", values, {name: SCHEMA[name] for name in values})
    refreshed = refresh(books)
    assert (refreshed.summed, refreshed.unreadable) == (1, 2)
    assert total_mj(books) == 10_000


def test_a_file_outside_its_partition_is_not_counted_and_says_why(ledger: Ledger, books: Books) -> None:
    ledger.book(entry(0, 1, 10))
    (path,) = ledger.home.energy().rglob("*.parquet")
    path.rename(ledger.home.energy() / "stray.parquet")
    assert refresh(books).unreadable == 1
    assert total_mj(books) == 0


def test_what_may_be_missing_flags_the_job_and_the_idle_energy_of_that_day_and_no_other(
    ledger: Ledger, books: Books
) -> None:
    submit(ledger.home, "j", "k")
    run_once(ledger.home, "j", JobState.SUCCEEDED)
    ledger.book(*standard_entries(), idle(20, 30, 5))
    ledger.book(entry(0, 1, 1, job_id="k"), node="node-2")
    torn(ledger)
    refresh(books)
    flagged = {(row.keys["job"], row.account): row.quality for row in rollup(books, ["job"])}
    assert flagged == {
        ("j", "job"): {Quality.GAP},
        ("k", "job"): frozenset(),
        (None, "idle"): {Quality.GAP},
    }


def test_a_journal_that_cannot_be_read_is_a_gap_until_it_can(ledger: Ledger, books: Books) -> None:
    ledger.book(entry(0, 1, 10))
    unreadable = ledger.home.energy("node-1") / f".journal-{at(0)}-b-1.jsonl"
    unreadable.mkdir()
    assert refresh(books).unreadable == 1
    assert only(rollup(books)).quality == {Quality.GAP}
    assert refresh(books).unreadable == 1
    unreadable.rmdir()
    assert refresh(books).unreadable == 0
    assert only(rollup(books)).quality == frozenset()


# --- the database itself


def test_a_database_that_is_none_is_made_anew(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    path = database_path(ledger.home)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database" * 1000)
    with open_books(ledger.home) as books:
        refresh(books)
        assert total_mj(books) == 3_600_000


def test_a_database_of_another_version_is_made_anew(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    with open_books(ledger.home) as books:
        refresh(books)
        books.rows("UPDATE about SET schema_version = 99")
        books.rows("DELETE FROM hours")
    with open_books(ledger.home) as books:
        assert refresh(books).summed == 1
        assert total_mj(books) == 3_600_000


def test_a_database_held_by_another_process_is_waited_for_and_then_named(ledger: Ledger) -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with held(ledger.home):
        waiting = open_books(ledger.home, patience_s=1, clock=lambda: now[0], sleep=sleep)
        with pytest.raises(UnreachableError, match=r"in use by another wattledger command.*PID"), waiting:
            pass
        assert sum(slept) >= 1
    with open_books(ledger.home, patience_s=0) as books:
        assert not books.in_memory


@contextlib.contextmanager
def held(home: Home) -> Iterator[None]:
    """Another process that has the database open until the block ends."""
    code = (
        "import sys; from pathlib import Path; from workers.home import Home\n"
        "from orchestrator.books.database import open_books\n"
        f"with open_books(Home(Path({str(home.root)!r}))): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_ledger_that_cannot_be_written_is_read_in_memory(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    (ledger.home.root / "derived").write_text("a file where the folder would be")
    with open_books(ledger.home) as books:
        refresh(books)
        assert books.in_memory
        assert total_mj(books) == 3_600_000


def test_a_path_that_duckdb_would_take_for_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="move the ledger"), open_books(Home(tmp_path / "a[1]")):
        pass


# --- increments


def test_only_new_files_are_summed_and_those_that_are_gone_are_forgotten(ledger: Ledger, books: Books) -> None:
    ledger.book(entry(0, 1, 10))
    (first,) = ledger.home.energy().rglob("*.parquet")
    assert refresh(books).summed == 1
    ledger.book(entry(1, 2, 20))
    assert refresh(books).summed == 1
    assert total_mj(books) == 30_000
    first.unlink()
    refreshed = refresh(books)
    assert (refreshed.summed, refreshed.forgotten) == (0, 1)
    assert total_mj(books) == 20_000


def test_more_files_than_a_batch_holds_are_all_summed(ledger: Ledger, books: Books) -> None:
    ledger.book(entry(0, 1, 1))
    (first,) = ledger.home.energy().rglob("*.parquet")
    for number in range(BATCH_FILES + 1):
        os.link(first, first.with_name(f"{number}.parquet"))
    assert refresh(books).summed == BATCH_FILES + 2
    assert total_mj(books) == 1000 * (BATCH_FILES + 2)


def test_only_jobs_that_something_happened_to_are_read_again(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j", "k")
    assert refresh(books).jobs == 2
    assert refresh(books).jobs == 0
    run_once(ledger.home, "k", JobState.FAILED)
    assert refresh(books).jobs == 1
    assert books.rows("SELECT job_id, state FROM main.jobs ORDER BY job_id") == [("j", "queued"), ("k", "failed")]


def test_another_store_in_the_place_of_the_first_is_read_whole(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j", "k")
    refresh(books)
    for path in ledger.home.root.glob("state.db*"):
        path.unlink()
    refresh(books)
    assert books.rows("SELECT count(*) FROM main.jobs") == [(0,)]
    submit(ledger.home, "m")
    refresh(books)
    assert books.rows("SELECT job_id FROM main.jobs") == [("m",)]


# --- roll-ups


def test_a_dimension_that_is_none_is_named_with_those_there_are(books: Books) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'model'"):
        rollup(books, ["modle"])


def test_an_empty_ledger_has_no_lines(books: Books) -> None:
    refresh(books)
    assert all(rollup(books, [name]) == () for name in DIMENSIONS)


def test_every_dimension_adds_up_to_the_same(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j")
    run_once(ledger.home, "j", JobState.SUCCEEDED)
    ledger.book(*standard_entries(), idle(20, 30, 5), entry(30, 31, 7, job_id="stranger"))
    refresh(books)
    for name in DIMENSIONS:
        assert sum(row.energy_mj for row in rollup(books, [name])) == 3_612_000


def test_a_line_says_whose_it_is_of_what_and_how_it_was_obtained(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j")
    run_once(ledger.home, "j", JobState.FAILED)
    ledger.book(
        entry(0, 1, 10),
        entry(
            1, 3, 20, kind="cpu", device="cpu", method=Method.MODELLED, quality=frozenset({Quality.SHARED, Quality.GAP})
        ),
    )
    refresh(books)
    assert only(rollup(books, ["model", "node"])).as_dict() == {
        "model": "tiny/vit",
        "node": "node-1",
        "account": "job",
        "jobs": 1,
        "attempts": 1,
        "energy_kwh": 30 / 3.6e6,
        "energy_mj": 30_000,
        "energy_by_kind_kwh": {"gpu": 10 / 3.6e6, "cpu": 20 / 3.6e6},
        "energy_wasted_kwh": 30 / 3.6e6,
        "energy_method": "modelled",
        "energy_quality": ["gap", "shared"],
        "witness_disagreement_percent": None,
    }


def test_lines_can_be_kept_by_the_values_of_a_dimension(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j", "k")
    ledger.book(entry(0, 1, 10), entry(1, 2, 20, job_id="k"), idle(2, 3, 40))
    refresh(books)
    assert only(rollup(books, where={"job": ["k"]})).energy_mj == 20_000
    assert rollup(books, where={"job": []}) == ()


def test_energy_over_the_edge_of_an_hour_is_in_both_and_whole(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j")
    ledger.book(entry(HOUR_S - 2, HOUR_S + 1, 0.010, Phase.TRAIN))
    refresh(books)
    assert [
        (found.hour_ns // (HOUR_S * NS_PER_S) - NOON_HOUR, found.energy_mj) for found in job_hours(books, ["j"])
    ] == [
        (0, 7),
        (1, 3),
    ]
    assert job_hours(books, ["k"]) == ()


def test_a_witness_is_compared_with_the_entries_that_have_one(ledger: Ledger, books: Books) -> None:

    ledger.book(entry(0, 1, 50))
    columns = {
        "start": [at(1), at(2)], "end": [at(2), at(3)], "device": ["d"] * 2, "model": ["T4"] * 2, "kind": ["gpu"] * 2,
        "energy_mj": [100, 1000], "job_id": ["j"] * 2, "attempt": [1] * 2, "phase": [None] * 2, "share": [1.0] * 2,
        "method": ["counter"] * 2, "quality": [[], []], "witness_mj": [110, None],
    }  # fmt: skip
    path = ledger.home.energy("node-1") / "date=2024-01-01" / "later.parquet"
    write_atomically(path, columns, {**SCHEMA, "witness_mj": Column.INT64})
    refresh(books)
    row = only(rollup(books))
    assert (row.energy_mj, row.witness_mj, row.witnessed_mj) == (51_100, 110, 100)
    assert row.disagreement_percent == pytest.approx(10.0, rel=1e-12)


def test_the_store_and_the_energy_log_agree_on_attempts(ledger: Ledger, books: Books) -> None:
    submit(ledger.home, "j")
    run_once(ledger.home, "j", JobState.SUCCEEDED)
    ledger.book(*standard_entries())
    refresh(books)
    assert books.rows("SELECT job_id, attempt, state, node, energy_mj FROM main.attempts") == [
        ("j", attempt().number, "succeeded", "node-1", 3_600_000)
    ]


# --- journals


def test_the_last_minute_of_a_node_counts_and_counts_once_when_it_becomes_a_file(ledger: Ledger, books: Books) -> None:
    log = EnergyLog(ledger.home.energy("node-1"), boot="b")
    log.append([entry(0, 1, 10)], {})
    refresh(books)
    assert total_mj(books) == 10_000
    log.append([entry(1, 2, 20)], {})
    refresh(books)
    assert total_mj(books) == 30_000
    (journal,) = ledger.home.energy().rglob(".journal-*")
    kept = journal.read_bytes()
    log.finish()
    refresh(books)
    assert total_mj(books) == 30_000
    journal.write_bytes(kept)  # an agent that was killed before it removed the journal
    refresh(books)
    assert total_mj(books) == 30_000


def test_what_a_journal_holds_too_is_not_compacted_until_the_journal_is_gone(ledger: Ledger, books: Books) -> None:
    log = EnergyLog(ledger.home.energy("node-1"), boot="b")
    log.append([entry(0, 1, 10)], {})
    (journal,) = ledger.home.energy().rglob(".journal-*")
    kept = journal.read_bytes()
    log.finish()
    journal.write_bytes(kept)
    ledger.book(entry(1, 2, 20))
    ledger.book(entry(2, 3, 40))
    assert [done.files for done in compact(books, before="2025-01-01")] == [2]
    assert total_mj(books) == sum(found.energy_mj for found in read_energy(ledger.home)) == 70_000
    journal.unlink()
    assert [done.files for done in compact(books, before="2025-01-01")] == [2]
    assert total_mj(books) == sum(found.energy_mj for found in read_energy(ledger.home)) == 70_000


def test_users_teams_and_projects_are_dimensions(ledger: Ledger, books: Books) -> None:
    spec = job(accounting={"team": "vision", "project": "leaves"}).spec
    run = RunRecord(run_id="r", name="r", manifest="", submitted_ns=at(-60), host="h", pid=1, user="ada")
    with contextlib.closing(Store(ledger.home.state_db)) as store:
        store.submit(run, [spec])
    ledger.book(entry(0, 1, 10), idle(1, 2, 5))
    refresh(books)
    keys = [row.keys for row in rollup(books, ["user", "team", "project"])]
    assert keys == [
        {"user": "ada", "team": "vision", "project": "leaves"},
        {"user": None, "team": None, "project": None},
    ]
    assert books.rows('SELECT "user", team, project FROM main.jobs') == [("ada", "vision", "leaves")]


def test_a_failure_of_the_database_is_told_with_the_remedy(ledger: Ledger) -> None:
    with pytest.raises(WattledgerError, match=r"remove .*derived: it is made anew"), open_books(ledger.home) as opened:
        opened.rows("SELECT * FROM nothing")
