"""Which jobs a report shows, in what order, and what they add up to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.accounting.slices import IDLE, UNATTRIBUTED, nobodys
from orchestrator.accounting.witness import NO_SERVER, Witness
from orchestrator.lifecycle import AttemptState
from orchestrator.report.groups import Group, group
from orchestrator.report.records import NAMES, Condition, Record, record_of, sort_records
from tests.unit.ledger import Ledger, at, attempt, entry, job
from tests.unit.report_rows import row
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.errors import InputError, UnknownNameError


def record(**changes: object) -> Record:
    made: ReportRow = row(**changes)
    silent = Witness(job_id=made.job_id, energy_kwh=None, disagreement_percent=None, reason=NO_SERVER)
    return {**record_of(Account(row=made, witness=silent), date="2026-03-01"), "user": "ada"}


@pytest.mark.parametrize("text", ["", "accelerator", "accelerator=", "=L4", "energy_kwh ~ 3", "a b=c"])
def test_what_is_no_condition_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match=r"is no condition\. Write a field"):
        Condition.parse(text)


def test_a_field_that_is_none_is_told_with_its_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown field 'acelerator'. Did you mean 'accelerator'\?"):
        Condition.parse("acelerator=L4")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("accelerator=T4", True),
        ("accelerator = L4, T4", True),
        ("accelerator=T", False),
        ("accelerator!=L4,T4", False),
        ("model=tiny/*", True),
        ("model=TINY/*", False),
        ("seed=0", True),
        ("seed=0.0", True),
        ("seed=zero", False),
        ("energy_kwh>0.0001", True),
        ("energy_kwh>0.0002", False),
        ("energy_kwh>=0.0002", True),
        ("energy_kwh<0.0002", False),
        ("energy_kwh<=2e-4", True),
        ("date>=2026-02-28", True),
        ("date<2026-03-01", False),
        ("user=ada", True),
        ("project=null", True),
        ("user!=null", True),
        ("power_cap_w=null", True),
        ("power_cap_w!=null", False),
        ("power_cap_w!=70", True),
        ("power_cap_w<70", False),
        ("power_cap_w>70", False),
        ("energy_quality=gap", True),
        ("energy_quality=reset", False),
    ],
)
def test_a_condition_holds_for_what_it_says_and_for_nothing_unknown(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds(record(energy_quality=("gap", "shared"))) is holds


def test_every_field_of_a_record_can_be_asked_for() -> None:
    assert set(record()) == set(NAMES)


def test_a_field_nobody_has_cannot_be_sorted_by() -> None:
    with pytest.raises(UnknownNameError, match="unknown field 'sed'"):
        sort_records([record()], ["sed"])


def test_records_are_sorted_by_the_first_field_then_the_next_and_what_is_unknown_is_last() -> None:
    records = [
        record(job_id="a", seed=2, score=0.5),
        record(job_id="b", seed=1, score=None),
        record(job_id="c", seed=1, score=0.7),
        record(job_id="d", seed=2, score=0.7),
    ]

    def ids(*keys: str) -> str:
        return "".join(str(one["job_id"]) for one in sort_records(records, keys))

    assert ids("-score", "seed") == "cdab"
    assert ids("score") == "acdb"
    assert ids("seed", "-score") == "cbda"
    assert ids("-job_id") == "dcba"
    assert ids() == "abcd"
    assert sort_records([], ["score"]) == []


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


DAY_S = 86_400.0


def accounts(ledger: Ledger) -> list[tuple[Account, Record]]:
    """Three jobs on two nodes and days: 3,600 J and 1,800 J of one model, the latter wasted, and one never metered."""
    ledger.book(entry(0, 10, 3000, Phase.TRAIN, job_id="a"), entry(10, 20, 600, Phase.TRAIN, job_id="a"))
    ledger.book(
        entry(DAY_S, DAY_S + 10, 1800, Phase.TRAIN, job_id="b", device="GPU-b", quality=frozenset({Quality.RESET})),
        node="node-2",
    )
    ledger.book(_idle("GPU-a", 900), entry(30, 40, 90, job_id="stranger"))
    ledger.book(_idle("GPU-b", 450, method=Method.SIMULATED), node="node-2")
    jobs = [
        job(attempt(), job_id="a", accounting={"team": "red", "region": "FRA", "pue": 1.0}),
        job(attempt(state=AttemptState.FAILED), job_id="b", accounting={"team": "red", "region": "FRA", "pue": 1.0}),
        job(attempt(), job_id="c", model="gone", accounting={"team": "blue"}),
    ]
    late = [replace(one, attempts=tuple(replace(a, ended_ns=at(DAY_S + 60)) for a in one.attempts)) for one in jobs]
    return [(one, record_of(one, date="2024-01-01")) for one in build_accounts(ledger.home, late)]


def _idle(device: str, joules: float, method: Method = Method.COUNTER) -> EnergyEntry:
    return replace(entry(50, 60, joules, device=device, method=method), job_id=None, attempt=None)


def lines(groups: tuple[Group, ...], *names: str) -> list[tuple[object, ...]]:
    return [tuple(line.as_record()[name] for name in names) for line in groups]


def test_a_key_jobs_cannot_be_grouped_by_is_told(ledger: Ledger) -> None:
    with pytest.raises(UnknownNameError, match="unknown key of a group 'score'"):
        group([], ["score"], {})


def test_sums_have_every_job_and_tell_those_they_lack(ledger: Ledger) -> None:
    found = group(accounts(ledger), ["team"], {})
    assert lines(found, "team", "account", "jobs", "jobs_unknown", "energy_kwh", "energy_wasted_kwh") == [
        ("red", "job", 2, 0, 0.0015, 0.0005),
        ("blue", "job", 1, 1, None, None),
    ]
    assert lines(found, "co2e_kg", "energy_method", "energy_quality") == [
        (pytest.approx(0.0015 * 0.056, rel=1e-12), "counter", ["reset"]),
        (None, None, []),
    ]


def test_a_job_is_cut_by_node_and_day_and_with_what_is_nobodys_all_adds_up(ledger: Ledger) -> None:
    pairs = accounts(ledger)
    others = nobodys(ledger.home, {"a", "b", "c"})
    assert {account: sum(one.energy_mj for one in slices) for account, slices in others.items()} == {
        IDLE: 1_350_000,
        UNATTRIBUTED: 90_000,
    }
    found = group(pairs, ["node", "day"], others)
    assert lines(found, "node", "day", "account", "jobs", "energy_kwh") == [
        ("node-1", "2024-01-01", "job", 1, 0.001),
        ("node-2", "2024-01-02", "job", 1, 0.0005),
        (None, None, "job", 1, None),
        ("node-1", "2024-01-01", "idle", 0, 900 / 3.6e6),
        ("node-2", "2024-01-01", "idle", 0, 450 / 3.6e6),
        ("node-1", "2024-01-01", "unattributed", 0, 90 / 3.6e6),
    ]
    whole = sum(line.energy_kwh or 0 for line in found)
    assert whole == pytest.approx((3600 + 1800 + 1350 + 90) / 3.6e6, rel=1e-12)
    assert [line.method for line in found[3:]] == ["counter", "simulated", "counter"]


def test_sums_by_nothing_are_one_line(ledger: Ledger) -> None:
    (line,) = group(accounts(ledger), [], {})
    assert (line.jobs, line.jobs_unknown, line.energy_kwh) == (3, 1, 0.0015)
