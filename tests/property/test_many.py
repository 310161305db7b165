"""Rows of many jobs are those of each job by itself: what is joined within an hour adds up to the same."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.accounting.energy import by_phase, held_s, sum_of, windows
from orchestrator.accounting.evidence import Evidence, gather
from orchestrator.accounting.rows import build_accounts
from orchestrator.books.compaction import compact
from orchestrator.books.database import open_books
from orchestrator.carbon.hourly import energy_by_hour
from orchestrator.lifecycle import AttemptRecord, AttemptState
from tests.property.test_books import NEVER, book, entries, stretches
from tests.unit.ledger import Ledger, at, attempt, job, standard_entries
from workers.contract import EnergyEntry, Method, Phase


def lasting(tried: AttemptRecord) -> AttemptRecord:
    return dataclasses.replace(tried, ended_ns=LATE_NS)


LATE_NS = at(9 * 86_400)
"""After all that is booked here: of few jobs only the days of their attempts are read."""
JOBS = [
    job(lasting(attempt(1, AttemptState.FAILED)), lasting(attempt(2)), job_id="a", accounting={"cpu_watts": 100.0}),
    job(lasting(attempt(1)), job_id="b"),
]


@st.composite
def witnessed(draw: st.DrawFn, booked: st.SearchStrategy[EnergyEntry]) -> EnergyEntry:
    """As an agent of today writes them: many have a second opinion."""
    entry = draw(booked)
    return dataclasses.replace(entry, witness_mj=draw(st.none() | st.integers(0, 2**40)))


BATCHES = st.lists(
    st.tuples(st.sampled_from(["n1", "n2"]), st.lists(witnessed(entries()), max_size=5) | stretches()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.booleans())
def test_joined_entries_have_the_sums_edges_and_hours_of_those_that_were_written(
    batches: list[tuple[str, list[EnergyEntry]]], compacted: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Ledger(Path(folder)).home
        book(home, one_after_the_other(batches))
        exact = gather(home, JOBS, many=99)
        if compacted:
            with open_books(home) as books:
                list(compact(books, before=NEVER))
        for one, other in zip(exact, gather(home, JOBS, many=0), strict=True):
            for name, value in told_by(one).items():
                assert told_by(other)[name] == value, name


def one_after_the_other(batches: list[tuple[str, list[EnergyEntry]]]) -> list[tuple[str, list[EnergyEntry]]]:
    """As a device's book has them: a device is of one node, and no time of it is booked twice."""
    free_ns: dict[str, int] = {}
    found = []
    for node, batch in batches:
        moved = []
        for entry in batch:
            device = f"{entry.device} of {node}"
            start_ns = max(entry.start_ns, free_ns.get(device, 0))
            free_ns[device] = start_ns + entry.end_ns - entry.start_ns
            moved.append(dataclasses.replace(entry, device=device, start_ns=start_ns, end_ns=free_ns[device]))
        found.append((node, moved))
    return found


def told_by(evidence: Evidence) -> dict[str, object]:
    """All a row is computed from."""
    booked = evidence.entries
    both = [entry for entry in booked if entry.kind == "gpu" and entry.witness_mj is not None]
    return {
        "total": sum_of(booked),
        "phases": {number: by_phase([e for e in booked if e.attempt == number]) for number in (1, 2)},
        "kinds": {kind: sum_of(e for e in booked if e.kind == kind) for kind in ("gpu", "cpu", "dram")},
        "windows": windows(booked),
        "held_s": held_s(windows(booked)),
        "hours": {
            phase: energy_by_hour((e.start_ns, e.end_ns, e.energy_mj) for e in booked if e.phase is phase)
            for phase in (None, *Phase)
        },
        "witness": sum(entry.witness_mj or 0 for entry in both),
        "witnessed": sum(entry.energy_mj for entry in both),
        "nodes": evidence.node_of,
        "damaged": evidence.damaged,
    }


def test_the_rows_are_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.book(*standard_entries(job_id="b", method=Method.SIMULATED))
    ledger.log_standard(job_id="b")
    ledger.book(*standard_entries(job_id="a", number=1), *standard_entries(job_id="a", number=2, device="GPU-b"))
    ledger.log_standard(job_id="a", number=2)
    rows = [account.row for account in build_accounts(ledger.home, JOBS)]
    assert rows == [account.row for account in build_accounts(ledger.home, JOBS, many=0)]
