"""Grams of roll-ups: each job by its own PUE and intensity, and the same as the jobs' own reports say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.accounting.rollup import DIMENSIONS, rollup
from orchestrator.accounting.rollup_carbon import NO_REGION, LineCarbon, key_of, rollup_carbon
from orchestrator.accounting.rows import build_accounts
from orchestrator.accounting.unknown import Unknown
from orchestrator.books.database import Books, open_books
from orchestrator.books.refresh import refresh
from orchestrator.carbon.intensity import DEFAULT_PUE, intensity_of
from orchestrator.carbon.series_file import keep_series
from orchestrator.carbon.sources import HourlySources
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.report.groups import group
from orchestrator.report.records import record_of
from orchestrator.store import RunRecord, Store
from tests.unit.ledger import Ledger, at, entry, job
from tests.unit.test_books import idle
from workers.contract import Accounting, Phase

HOUR_S, MIDNIGHT_S = 3600, 12 * 3600


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home")


@pytest.fixture
def books(ledger: Ledger) -> Iterator[Books]:
    with open_books(ledger.home) as opened:
        yield opened


def submit(ledger: Ledger, **jobs: dict[str, object]) -> None:
    """Jobs of those names that ran once, with what their manifests say of carbon; user and region of each its own."""
    run = RunRecord(run_id="run", name="study", manifest="", submitted_ns=at(-60), host="h", pid=1, user="ada")
    with contextlib.closing(Store(ledger.home.state_db)) as store:
        store.submit(run, [job(job_id=name, accounting=said).spec for name, said in jobs.items()])
        for name in jobs:
            store.start_attempt(name, nodes=("node-1",), accelerator="T4", now_ns=at(-1))
            store.end_attempt(
                name, 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=at(15)
            )


def kg(found: LineCarbon | Unknown) -> float:
    assert isinstance(found, LineCarbon)
    return found.co2e_kg


def test_what_no_job_drew_has_no_grams_until_somebody_says_where_it_was(ledger: Ledger, books: Books) -> None:
    ledger.book(idle(0, 10, 3600), entry(10, 20, 7200, job_id="stranger"))
    refresh(books)
    assert rollup_carbon(books) == {("idle", ()): Unknown(NO_REGION), ("unattributed", ()): Unknown(NO_REGION)}
    located = rollup_carbon(books, nobodys=Accounting(region="FRA", pue=1.5))
    assert kg(located["idle", ()]) == 0.001 * 1.5 * intensity_of("FRA").g_per_kwh / 1000


def test_one_job_of_a_region_nobody_knows_leaves_its_line_unknown_and_no_other(ledger: Ledger, books: Books) -> None:
    submit(ledger, j={"region": "USA"}, k={"region": "Atlantis"})
    ledger.book(entry(0, 1, 3600), entry(1, 2, 3600, job_id="k"))
    refresh(books)
    found = rollup_carbon(books)["job", ()]
    assert isinstance(found, Unknown)
    assert "unknown region 'Atlantis'" in found.reason
    assert isinstance(rollup_carbon(books, ["job"])["job", ("j",)], LineCarbon)


def test_jobs_of_one_line_count_each_by_its_own_pue_and_region(ledger: Ledger, books: Books) -> None:
    submit(ledger, j={"region": "FRA", "pue": 1.25}, k={})
    ledger.book(entry(0, 1, 3600), entry(1, 2, 7200, job_id="k"))
    refresh(books)
    found = rollup_carbon(books, ["user"])["job", ("ada",)]
    french, world = intensity_of("FRA").g_per_kwh, intensity_of(None).g_per_kwh
    assert kg(found) == pytest.approx(0.001 * 1.25 * french / 1000 + 0.002 * DEFAULT_PUE * world / 1000, rel=1e-12)
    assert isinstance(found, LineCarbon)
    assert [source[:5] for source in found.sources] == ["FRA: ", "WORLD"]


def test_every_line_of_every_dimension_has_its_grams(ledger: Ledger, books: Books) -> None:
    submit(ledger, j={"region": "FRA"}, k={"pue": 1.1})
    ledger.book(entry(0, 1, 3600, Phase.TRAIN), entry(1, 2, 7200, job_id="k"), idle(2, 3, 5))
    refresh(books)
    for by in ([], ["user", "day"], *([name] for name in DIMENSIONS)):
        rows, found = rollup(books, by), rollup_carbon(books, by, nobodys=Accounting(region="DEU"))
        assert {key_of(row) for row in rows} == found.keys()
        assert sum(map(kg, found.values())) == pytest.approx(
            sum(map(kg, rollup_carbon(books, nobodys=Accounting(region="DEU")).values())), rel=1e-12
        )


def test_a_job_with_a_series_counts_each_hour_by_its_own_figure_as_its_report_does(
    ledger: Ledger, books: Books, tmp_path: Path
) -> None:
    (tmp_path / "grid.csv").write_text("time,g_per_kwh\n2024-01-01T12:00:00Z,100\n2024-01-01T13:00:00Z,300\n")
    keep_series(ledger.home, "run", tmp_path, ["grid.csv"])
    submit(ledger, j={"pue": 1.0, "intensity": "grid.csv"})
    ledger.book(entry(0, 10, 3600), entry(HOUR_S - 5, HOUR_S + 15, 7200), entry(2 * HOUR_S, 2 * HOUR_S + 1, 3600))
    refresh(books)
    with contextlib.closing(HourlySources(ledger.home)) as sources:
        found = rollup_carbon(books, sources=sources)["job", ()]
        with contextlib.closing(Store(ledger.home.state_db)) as store:
            (account,) = build_accounts(ledger.home, store.jobs(), sources=sources)
    yearly = intensity_of(None).g_per_kwh
    assert kg(found) == pytest.approx((0.0015 * 100 + 0.0015 * 300 + 0.001 * yearly) / 1000, rel=1e-12)
    assert kg(found) == account.row.co2e_kg
    assert isinstance(found, LineCarbon)
    assert [source.replace("PUE 1:", "PUE:") for source in found.sources] == [account.row.carbon_source]


@pytest.mark.parametrize("by", [("user",), ("project",), ("model",), ("node", "day"), ("accelerator",)])
def test_reports_and_roll_ups_give_the_same_energy_and_grams_of_jobs(
    ledger: Ledger, books: Books, by: tuple[str, ...]
) -> None:
    submit(ledger, j={"region": "FRA", "project": "moon"}, k={"region": "USA"})
    ledger.book(
        *(entry(3 * n, 3 * n + 3, 100.001 * n, Phase.TRAIN) for n in range(1, 5)),
        entry(MIDNIGHT_S - HOUR_S - 1, MIDNIGHT_S + HOUR_S + 2, 0.010, Phase.EVALUATE),
        entry(50, 60, 777, job_id="k"),
    )
    ledger.book(entry(60, 70, 333, job_id="k", device="GPU-b"), node="node-2")
    refresh(books)
    with contextlib.closing(Store(ledger.home.state_db)) as store:
        accounts = build_accounts(ledger.home, store.jobs())
    lines = group([(account, record_of(account, date="2024-01-01")) for account in accounts], by, {})
    reported = {tuple(line.keys.values()): line for line in lines}
    rows, grams = rollup(books, by), rollup_carbon(books, by)
    assert {tuple(row.keys.values()): row.energy_kwh for row in rows} == {
        key: line.energy_kwh for key, line in reported.items()
    }
    for row in rows:
        assert kg(grams[key_of(row)]) == pytest.approx(reported[tuple(row.keys.values())].co2e_kg, rel=1e-12)
