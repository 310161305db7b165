"""Budgets count what was drawn in their period, of everybody they are of, and say what they could not count."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.accounting.budgets import NOT_PREDICTED, BudgetStatus, budget_statuses, period_of
from orchestrator.lifecycle import AttemptRecord, JobRecord, JobState
from orchestrator.store import BudgetPeriod, BudgetRecord
from tests.unit.ledger import Ledger, at, attempt, entry, job
from workers.contract import Method, Phase
from workers.units import NS_PER_S

FRANCE = {"region": "FRA", "pue": 1.5}
DAY_S = 86_400


def budget(**changes: Any) -> BudgetRecord:
    fields = {"scope": "project", "name": "p", "period": "total", "energy_kwh": 0.002, "co2e_kg": None, "set_ns": 1}
    return BudgetRecord(**{**fields, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def ran(days: int = 0, *, state: JobState = JobState.SUCCEEDED) -> AttemptRecord:
    """An attempt that ended so many days after the first minute."""
    return replace(attempt(state=state), ended_ns=at(days * DAY_S + 60))


def of_project(job_id: str, *tried: AttemptRecord, project: str = "p", user: str = "ada") -> JobRecord:
    made = job(*tried, job_id=job_id, accounting={**FRANCE, "project": project, "team": "t"})
    return replace(made, user=user)


def status(ledger: Ledger, jobs: list[JobRecord], wanted: BudgetRecord, *, day: int = 0) -> BudgetStatus:
    (found,) = budget_statuses(ledger.home, jobs, [wanted], now_ns=at(day * DAY_S))
    return found


def text(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    return datetime.datetime.fromtimestamp(time_ns // NS_PER_S, tz=datetime.UTC).isoformat()[:10]


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("total", None, None),
        ("day", "2024-02-29", "2024-03-01"),
        ("week", "2024-02-26", "2024-03-04"),
        ("month", "2024-02-01", "2024-03-01"),
    ],
)
def test_a_period_begins_and_ends_at_midnight_utc(period: BudgetPeriod, start: str | None, end: str | None) -> None:
    leap_day = datetime.datetime(2024, 2, 29, 23, 59, 59, tzinfo=datetime.UTC)
    found = period_of(period, int(leap_day.timestamp()) * NS_PER_S)
    assert tuple(map(text, found)) == (start, end)


def test_december_ends_with_the_year() -> None:
    december = datetime.datetime(2023, 12, 31, 12, tzinfo=datetime.UTC)
    assert tuple(map(text, period_of("month", int(december.timestamp()) * NS_PER_S))) == ("2023-12-01", "2024-01-01")


def test_a_budget_nobody_spent_of_is_whole(ledger: Ledger) -> None:
    found = status(ledger, [of_project("a")], budget())
    assert (found.jobs, found.spent["energy_kwh"], found.left) == (0, 0.0, {"energy_kwh": 0.002})
    assert (found.method, found.is_exceeded) == (None, False)


def test_a_job_that_was_not_metered_is_named_and_not_taken_for_free(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 3600, Phase.TRAIN, job_id="a"))
    found = status(ledger, [of_project("a", ran()), of_project("b", ran())], budget())
    assert (found.jobs, found.unknown, found.spent["energy_kwh"]) == (2, ("b",), 0.001)
    assert found.as_dict()["jobs_unknown"] == ["b"]


def test_a_job_of_an_unknown_region_is_named_where_carbon_is_what_counts(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 3600, Phase.TRAIN, job_id="a"))
    lost = replace(job(ran(), job_id="a", accounting={"region": "ATLANTIS", "project": "p"}), user="ada")
    assert status(ledger, [lost], budget(co2e_kg=1.0)).unknown == ("a",)
    assert status(ledger, [lost], budget()).unknown == ()


def test_energy_and_carbon_of_failed_attempts_are_spent_as_well(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 3600, Phase.TRAIN, job_id="a"), entry(0, 9, 1800, job_id="b", device="GPU-b"))
    jobs = [of_project("a", ran()), of_project("b", ran(state=JobState.FAILED))]
    found = status(ledger, jobs, budget(energy_kwh=0.001, co2e_kg=1.0))
    # 0.0015 kWh x 84 g.
    assert found.spent == {"energy_kwh": 0.0015, "co2e_kg": pytest.approx(0.000126, rel=1e-12)}
    assert found.left["energy_kwh"] == pytest.approx(-0.0005, rel=1e-9)
    assert found.is_exceeded


def test_only_what_was_drawn_in_the_period_counts(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 3600, Phase.TRAIN, job_id="a"))
    ledger.book(entry(DAY_S, DAY_S + 10, 1800, Phase.TRAIN, job_id="a", method=Method.SIMULATED))
    jobs = [of_project("a", ran(days=1))]
    spent = {day: status(ledger, jobs, budget(period="day"), day=day) for day in (0, 1, 2)}
    assert [found.spent["energy_kwh"] for found in spent.values()] == [0.001, 0.0005, 0.0]
    assert [found.method for found in spent.values()] == ["counter", "simulated", None]
    assert [found.jobs for found in spent.values()] == [1, 1, 0]


@pytest.mark.parametrize(
    ("scope", "name", "kwh"),
    [
        ("project", "p", 0.001),
        ("project", "q", 0.0005),
        ("user", "ada", 0.0015),
        ("team", "t", 0.0015),
        ("job", "b", 0.0005),
    ],
)
def test_a_budget_is_of_whom_it_names(ledger: Ledger, scope: str, name: str, kwh: float) -> None:
    ledger.book(entry(0, 10, 3600, job_id="a"), entry(0, 9, 1800, job_id="b", device="GPU-b"))
    jobs = [of_project("a", ran()), of_project("b", ran(), project="q")]
    assert status(ledger, jobs, budget(scope=scope, name=name)).spent["energy_kwh"] == kwh


def test_predictions_are_null_with_a_reason(ledger: Ledger) -> None:
    told = status(ledger, [], budget(period="month")).as_dict()
    assert told["energy_kwh"] == {"budget": 0.002, "spent": 0.0, "predicted": None, "left": 0.002}
    assert told["co2e_kg"] == {"budget": None, "spent": 0.0, "predicted": None, "left": None}
    assert told["reasons"] == {"predicted": NOT_PREDICTED}
    assert (told["start"], told["end"]) == ("2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00")
