"""The books balance: total = jobs + idle + unattributed, whatever the batches, their order, compaction and crashes."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.accounting.energy import windows
from orchestrator.accounting.rollup import rollup
from orchestrator.books.compaction import compact, compact_day
from orchestrator.books.database import Books, open_books
from orchestrator.books.refresh import refresh
from orchestrator.store import RunRecord, Store
from workers.contract import EnergyEntry, JobSpec, Method, Phase, Quality
from workers.home import Home
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.energy_read import read_energy
from workers.units import NS_PER_S, NS_PER_US, apportion

MIDNIGHT_NS = 1_704_067_200 * NS_PER_S
NS_PER_HOUR = 3600 * NS_PER_S
KNOWN, UNKNOWN = ("a", "b"), "stranger"
NEVER = "9999-01-01"
Account = tuple[object, ...]
"""Node, hour since the epoch, device, job, attempt, phase, method, flags."""


@st.composite
def entries(draw: st.DrawFn) -> EnergyEntry:
    """From instants to hours long, at edges of minutes, hours and days more often than chance has it."""
    start_us = draw(st.integers(0, 2 * 86_400 * 10**6) | st.integers(0, 2880).map(lambda minute: minute * 60 * 10**6))
    length_us = draw(st.sampled_from([0, 1, 10**6, 60 * 10**6, 3600 * 10**6]) | st.integers(0, 4 * 3600 * 10**6))
    job_id = draw(st.none() | st.sampled_from([*KNOWN, UNKNOWN]))
    device = draw(st.sampled_from(["GPU-1", "GPU-2", "cpu"]))
    return EnergyEntry(
        start_ns=MIDNIGHT_NS + start_us * NS_PER_US,
        end_ns=MIDNIGHT_NS + (start_us + length_us) * NS_PER_US,
        device=device,
        model="H100",
        kind="cpu" if device == "cpu" else "gpu",
        energy_mj=draw(st.integers(0, 2**58) | st.integers(0, 9)),
        job_id=job_id,
        attempt=None if job_id is None else draw(st.integers(1, 2)),
        phase=None if job_id is None else draw(st.none() | st.sampled_from([Phase.LOAD, Phase.TRAIN])),
        share=draw(st.sampled_from([1.0, 0.5])),
        method=draw(st.sampled_from([Method.COUNTER, Method.SIMULATED])),
        quality=draw(st.frozensets(st.sampled_from([Quality.GAP, Quality.SHARED]))),
    )


@st.composite
def stretches(draw: st.DrawFn) -> list[EnergyEntry]:
    """Entries end to end on one account over the edge of an hour, as an agent writes them second by second."""
    length_ns = draw(st.sampled_from([NS_PER_S, 7 * NS_PER_S]))
    edge_ns = MIDNIGHT_NS + draw(st.sampled_from([1, 2, 24])) * NS_PER_HOUR
    first = dataclasses.replace(
        draw(entries()), start_ns=edge_ns - draw(st.integers(1, 8 * 10)) * length_ns // 10, quality=frozenset()
    )
    return [
        dataclasses.replace(
            first,
            start_ns=first.start_ns + number * length_ns,
            end_ns=first.start_ns + (number + 1) * length_ns,
            energy_mj=draw(st.integers(0, 10**6)),
        )
        for number in range(draw(st.integers(2, 8)))
    ]


BATCHES = st.lists(
    st.tuples(st.sampled_from(["n1", "n2"]), st.lists(entries(), max_size=5) | stretches()), min_size=1, max_size=6
)


@contextlib.contextmanager
def ledger() -> Iterator[Home]:
    """A home whose store knows the jobs ``KNOWN``; attempt 1 of each has failed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with contextlib.closing(Store(home.state_db)) as store:
            run = RunRecord(run_id="r", name="r", manifest="", submitted_ns=0, host="h", pid=1)
            store.submit(run, [JobSpec(job_id=name, task="digits", model="tiny/vit") for name in KNOWN])
        yield home


def book(home: Home, batches: Sequence[tuple[str, Sequence[EnergyEntry]]], boot: str = "b") -> None:
    for number, (node, batch) in enumerate(batches):
        EnergyLog(home.energy(node), boot=f"{boot}-{number}").write(batch)


def by_hour(node: str, booked: Sequence[EnergyEntry]) -> Counter[Account]:
    """What the entries add up to in each hour: the plain way, one by one."""
    sums: Counter[Account] = Counter()
    for entry in booked:
        first, last = entry.start_ns // NS_PER_HOUR, max(entry.start_ns, entry.end_ns - 1) // NS_PER_HOUR
        hours = range(first, last + 1)
        overlaps = [
            min(entry.end_ns, (hour + 1) * NS_PER_HOUR) - max(entry.start_ns, hour * NS_PER_HOUR) for hour in hours
        ]
        for hour, part_mj in zip(hours, apportion(entry.energy_mj, overlaps), strict=True):
            flags = ",".join(sorted(entry.quality))
            account = (node, hour, entry.device, entry.job_id, entry.attempt, entry.phase, entry.method, flags)
            sums[account] += part_mj
    return sums


def expected(batches: Sequence[tuple[str, Sequence[EnergyEntry]]]) -> Counter[Account]:
    sums: Counter[Account] = Counter()
    for node, batch in batches:
        sums.update(by_hour(node, batch))
    return sums


def summed(books: Books) -> dict[Account, int]:
    rows = books.rows(
        "SELECT node, hour, device, job_id, attempt, phase, method, quality, sum(energy_mj) FROM hours GROUP BY ALL"
    )
    return {tuple(account): int(energy_mj) for *account, energy_mj in rows}


def fresh(home: Home) -> dict[Account, int]:
    """The same from the beginning, in a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        other = Home(Path(folder))
        other.energy().symlink_to(home.energy())
        with open_books(other) as books:
            refresh(books)
            return summed(books)


@settings(max_examples=40, deadline=None)
@given(BATCHES, st.randoms(use_true_random=False))
def test_hours_are_those_of_the_entries_in_any_batches_and_order_and_grow_as_they_would_from_the_beginning(
    batches: list[tuple[str, list[EnergyEntry]]], random: object
) -> None:
    random.shuffle(batches)  # type: ignore[attr-defined]
    with ledger() as home, open_books(home) as books:
        for number, batch in enumerate(batches):
            book(home, [batch], boot=f"b{number}")
            refresh(books)
            assert summed(books) == expected(batches[: number + 1])
        assert refresh(books).summed == 0


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_every_roll_up_is_jobs_and_idle_and_unattributed_and_adds_up_to_all_there_is(
    batches: list[tuple[str, list[EnergyEntry]]],
) -> None:
    booked = [entry for _, batch in batches for entry in batch]
    parts = {
        "job": sum(entry.energy_mj for entry in booked if entry.job_id in KNOWN),
        "idle": sum(entry.energy_mj for entry in booked if entry.job_id is None),
        "unattributed": sum(entry.energy_mj for entry in booked if entry.job_id == UNKNOWN),
    }
    with ledger() as home, open_books(home) as books:
        book(home, batches)
        refresh(books)
        for by in ((), ("node", "day"), ("model", "accelerator"), ("job",), ("hour", "device"), ("phase", "user")):
            found: Counter[str] = Counter(parts and dict.fromkeys(parts, 0))
            for row in rollup(books, by):
                found[row.account] += row.energy_mj
                assert sum(row.by_kind_mj.values()) == row.energy_mj
            assert dict(found) == parts


@settings(max_examples=30, deadline=None)
@given(BATCHES, BATCHES, st.integers(0, 40))
def test_compaction_cut_short_at_any_step_neither_loses_nor_doubles_and_the_next_one_finishes(
    batches: list[tuple[str, list[EnergyEntry]]], late: list[tuple[str, list[EnergyEntry]]], steps: int
) -> None:
    with ledger() as home, open_books(home) as books:
        book(home, batches)
        refresh(books)
        crash_after(books, steps)
        assert in_readers_eyes(home) == expected(batches)
        refresh(books)
        assert summed(books) == expected(batches) == fresh(home)
        book(home, late, boot="late")
        assert [day.problem for day in compact(books, before=NEVER) if day.problem] == []
        assert summed(books) == expected([*batches, *late]) == fresh(home)
        assert in_readers_eyes(home) == expected([*batches, *late])
        assert all(len(list(day.iterdir())) <= 1 for day in home.energy().glob("node=*/date=*"))


def crash_after(books: Books, steps: int) -> None:
    """Compact, and leave off after so many steps, whatever there was still to do."""
    for folder in sorted(books.home.energy().glob("node=*/date=*")):
        for _ in compact_day(books, folder):
            steps -= 1
            if steps <= 0:
                return


def in_readers_eyes(home: Home) -> Counter[Account]:
    sums: Counter[Account] = Counter()
    for node in ("n1", "n2"):
        sums.update(by_hour(node, read_energy(home, node=node)))
    return sums


@settings(max_examples=30, deadline=None)
@given(BATCHES)
def test_a_jobs_windows_and_phases_are_the_same_before_and_after_compaction(
    batches: list[tuple[str, list[EnergyEntry]]],
) -> None:
    with ledger() as home, open_books(home) as books:
        book(home, batches)
        before = {job_id: read_energy(home, job_ids=[job_id]) for job_id in KNOWN}
        list(compact(books, before=NEVER))
        for job_id, booked in before.items():
            after = read_energy(home, job_ids=[job_id])
            assert windows(after) == windows(booked)
            assert Counter(e for e in after if e.phase is None) == Counter(e for e in booked if e.phase is None)
            assert sum(e.end_ns - e.start_ns for e in after) == sum(e.end_ns - e.start_ns for e in booked)
