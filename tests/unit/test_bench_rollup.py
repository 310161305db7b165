"""The generated books: their truth, that they cover all time, and that few jobs and many have the same rows."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.accounting.rollup import rollup
from orchestrator.accounting.rows import build_accounts
from orchestrator.books.database import open_books
from orchestrator.books.refresh import refresh
from orchestrator.store import Store
from tests.bench.books import STRANGER, Books, job_name, make_books
from tests.bench.holds import DAY_S, TINY
from tests.bench.range_queries import errors_percent
from tests.bench.rollup import roll_up
from workers.home import Home
from workers.telemetry.energy_read import read_energy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Books:
    return make_books(Home(tmp_path_factory.mktemp("books")), TINY)


def test_every_device_is_booked_for_all_of_the_time_and_no_more(made: Books) -> None:
    booked: dict[str, float] = {}
    for entry in read_energy(made.home):
        booked[entry.device] = booked.get(entry.device, 0) + entry.share * (entry.end_ns - entry.start_ns) / 1e9
    assert booked == dict.fromkeys(booked, float(TINY.days * DAY_S))
    assert len(booked) == TINY.nodes * (TINY.gpus + 1)


def test_the_roll_up_is_the_truth_and_so_is_what_more_jobs_add(tmp_path: Path) -> None:
    home = Home(tmp_path)
    truth = {str(job): mj for job, mj in make_books(home, TINY).truth_mj.items()}
    assert roll_up(home)["energy_mj"] == truth
    more = make_books(home, TINY, first_job=TINY.jobs, jobs=2, days=range(TINY.days, TINY.days + 1))
    found = roll_up(home)
    assert found["energy_mj"] == {
        **truth,
        **{str(job): mj + (truth["None"] if job is None else 0) for job, mj in more.truth_mj.items()},
    }
    assert found["files"] == more.files


def test_the_job_nobody_knows_is_unattributed(made: Books) -> None:
    with open_books(made.home) as books:
        refresh(books)
        accounts = {row.keys["job"]: row.account for row in rollup(books, ["job"])}
    assert accounts.pop(None) == "idle"
    assert accounts.pop(job_name(STRANGER)) == "unattributed"
    assert set(accounts.values()) == {"job"}


def test_many_jobs_have_the_rows_of_few(made: Books) -> None:
    with contextlib.closing(Store(made.home.state_db)) as store:
        jobs = store.jobs()
    few = build_accounts(made.home, jobs, many=len(jobs) + 1)
    many = build_accounts(made.home, jobs, many=0)
    assert [account.row for account in many] == [account.row for account in few]
    assert [json.dumps(account.row.as_dict()) for account in many] == [json.dumps(a.row.as_dict()) for a in few]


def test_the_same_seed_makes_the_same_books_and_another_does_not(made: Books, tmp_path: Path) -> None:
    assert make_books(Home(tmp_path / "same"), TINY).truth_mj == made.truth_mj
    assert make_books(Home(tmp_path / "other"), replace(TINY, seed=5)).truth_mj != made.truth_mj


def test_an_error_is_of_the_truth_and_a_job_that_was_not_found_is_wholly_wrong() -> None:
    assert errors_percent({"a": 101.0}, {"a": 100.0, "b": 50.0, "c": 0.0}) == [1.0, 100.0]
