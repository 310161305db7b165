"""A device that is everybody's: parts follow what was measured, add up to the counter, and nobody's is nobody's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metering import START_NS, energy_by_job, lease
from workers.contract import Device, EnergyEntry, Method, Phase, Quality, Reading
from workers.telemetry.booking import DeviceBook
from workers.telemetry.sharing import use_by_lease
from workers.telemetry.stretches import Claim
from workers.units import NS_PER_S, apportion

GAP_NS = 2 * NS_PER_S


@dataclass(frozen=True)
class Look:
    """Time passes, the device is weighed and read; growth 0 is a counter that has not refreshed."""

    passed_ns: int
    grown_mj: int
    used: dict[str | None, int]


@dataclass(frozen=True)
class Hold:
    """From now on these jobs hold leases. The device is weighed and read first, as at any edge."""

    jobs: frozenset[str]
    look: Look


Step = Look | Hold

JOBS = ("a", "b", "c")
TICKS = st.sampled_from([0, 0, 1]) | st.integers(0, 10_000)
USED = st.dictionaries(st.none() | st.sampled_from(JOBS), TICKS, max_size=4)
LOOKS = st.builds(
    Look,
    st.integers(0, 300_000_000) | st.sampled_from([0, 1, GAP_NS, GAP_NS + 1]),
    st.sampled_from([0, 1, 2, 7]) | st.integers(0, 10**9),
    USED,
)
STEPS = st.lists(LOOKS | st.builds(Hold, st.frozensets(st.sampled_from(JOBS)), LOOKS), max_size=40)
METHODS = st.sampled_from([Method.COUNTER, Method.MODELLED])


def device(kind: Literal["gpu", "cpu", "dram"], method: Method = Method.COUNTER) -> Device:
    return Device(uuid=f"{kind}-0", index=0, model="CPU", kind=kind, method=method)


def claim(job: str) -> Claim:
    return Claim(lease_id=f"lease-{job}", job_id=job, attempt=1, phase=Phase.TRAIN)


class Told:
    """A book of one device that is told a story; ``used_by_anyone`` are the jobs that were ever seen to use it."""

    def __init__(self, steps: Sequence[Step], of: Device) -> None:
        self.book, self.of = DeviceBook(of), of
        self.now_ns, self.counter_mj = START_NS, 1_000_000
        self.held: frozenset[str] = frozenset()
        self.used_by_anyone: set[str] = set()
        self._read()
        for step in steps:
            self._look(step.look if isinstance(step, Hold) else step)
            if isinstance(step, Hold):
                self.held = step.jobs
                self.book.edge(self.now_ns, [claim(job) for job in sorted(self.held)])
        self.entries: list[EnergyEntry] = self.book.take()

    def _look(self, look: Look) -> None:
        self.now_ns += look.passed_ns
        self.counter_mj += look.grown_mj
        # Only who holds a lease is weighed apart; everyone else is nobody.
        used: Counter[str | None] = Counter()
        for job, ticks in look.used.items():
            used[f"lease-{job}" if job in self.held else None] += ticks
            if job in self.held and ticks:
                self.used_by_anyone.add(str(job))
        self.book.weigh(used)
        self._read()

    def _read(self) -> None:
        self.book.observe(Reading(device=self.of.uuid, time_ns=self.now_ns, energy_mj=self.counter_mj, power_mw=None))


@settings(max_examples=500, deadline=None)
@given(STEPS, st.sampled_from(["cpu", "dram"]), METHODS)
def test_parts_of_jobs_and_nobodys_add_up_to_the_counter(
    steps: list[Step], kind: Literal["cpu", "dram"], method: Method
) -> None:
    told = Told(steps, device(kind, method))
    assert sum(entry.energy_mj for entry in told.entries) == told.book.booked_mj == told.counter_mj - 1_000_000
    assert all(entry.energy_mj >= 0 and 0 <= entry.share <= 1 for entry in told.entries)
    by_job = energy_by_job(told.entries)
    by_lease = {f"lease-{job}": energy for job, energy in by_job.items() if job is not None}
    assert told.book.booked_by_lease == by_lease
    assert {entry.method for entry in told.entries} <= {method}


@settings(max_examples=500, deadline=None)
@given(STEPS)
def test_who_was_never_seen_to_use_the_host_has_nothing_of_it(steps: list[Step]) -> None:
    told = Told(steps, device("cpu"))
    by_job = energy_by_job(told.entries)
    assert {job for job, energy in by_job.items() if job is not None and energy} <= told.used_by_anyone


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_a_job_has_of_the_host_is_flagged_shared(steps: list[Step]) -> None:
    told = Told(steps, device("cpu"))
    assert all(Quality.SHARED in entry.quality for entry in told.entries if entry.job_id is not None)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(1, 10**12),
    st.dictionaries(st.sampled_from(JOBS), st.integers(0, 10**6), min_size=1),
    st.integers(0, 10**6),
)
def test_one_increment_is_split_by_largest_remainder_of_what_each_used(
    grown_mj: int, used: dict[str, int], others: int
) -> None:
    book = DeviceBook(device("cpu"))
    book.observe(Reading(device="cpu-0", time_ns=START_NS, energy_mj=0, power_mw=None))
    jobs = sorted(used)
    book.edge(START_NS, [claim(job) for job in jobs])
    book.weigh({**{f"lease-{job}": ticks for job, ticks in used.items()}, None: others})
    book.observe(Reading(device="cpu-0", time_ns=START_NS + 10**9, energy_mj=grown_mj, power_mw=None))
    ticks = [*(used[job] for job in jobs), others]
    parts = apportion(grown_mj, ticks) if any(ticks) else [*(0 for _ in jobs), grown_mj]
    expected = {job: part for job, part in zip([*jobs, None], parts, strict=True) if part}
    assert {job: energy for job, energy in energy_by_job(book.take()).items() if energy} == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**8), st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000)), max_size=30
    )
)
def test_two_agents_of_one_host_never_book_more_than_it_drew(looks: list[tuple[int, int, int, int]]) -> None:
    """Each agent sees its own job, the other's among the rest; a part is rounded by less than a millijoule."""
    books = {job: DeviceBook(device("cpu")) for job in "ab"}
    counter_mj, moved = 0, 0
    for job, book in books.items():
        book.observe(Reading(device="cpu-0", time_ns=START_NS, energy_mj=0, power_mw=None))
        book.edge(START_NS, [claim(job)])
    for second, (grown_mj, a, b, rest) in enumerate(looks, start=1):
        counter_mj += grown_mj
        moved += bool(grown_mj)
        for job, own, others in (("a", a, b + rest), ("b", b, a + rest)):
            books[job].weigh({f"lease-{job}": own, None: others})
            books[job].observe(
                Reading(device="cpu-0", time_ns=START_NS + second * 10**9, energy_mj=counter_mj, power_mw=None)
            )
    booked_mj = sum(energy_by_job(books[job].take()).get(job, 0) for job in "ab")
    assert booked_mj <= counter_mj + moved


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**9), st.dictionaries(st.sampled_from(JOBS), st.integers(0, 100), min_size=1))
def test_a_gpu_several_hold_is_split_by_measured_use_else_equally_and_nothing_is_left(
    grown_mj: int, used: dict[str, int]
) -> None:
    book = DeviceBook(device("gpu"))
    book.observe(Reading(device="gpu-0", time_ns=START_NS, energy_mj=0, power_mw=None))
    jobs = sorted(used)
    book.edge(START_NS, [claim(job) for job in jobs])
    book.weigh({f"lease-{job}": amount for job, amount in used.items()})
    book.observe(Reading(device="gpu-0", time_ns=START_NS, energy_mj=grown_mj, power_mw=None))
    assert energy_by_job(book.take()) == dict(zip(jobs, apportion(grown_mj, [used[job] for job in jobs]), strict=True))


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.integers(0, 2 * 10**9)), st.lists(st.integers(1, 6), max_size=6))
def test_use_by_process_becomes_use_by_lease_in_whole_and_in_proportion(
    used_ns: dict[int, int], pids: list[int]
) -> None:
    leases = [lease(f"{place}", ["0"], pid=pid) for place, pid in enumerate(pids)]
    used = use_by_lease(used_ns, leases, lambda pid: (pid,))
    assert all(isinstance(amount, int) and amount >= 0 for amount in used.values())
    if not set(pids) & set(used_ns):
        assert used == {}
        return
    unit = math.lcm(*Counter(pids).values())
    assert sum(used.values()) == unit * sum(used_ns.values())
    assert used.get(None, 0) == unit * sum(amount for pid, amount in used_ns.items() if pid not in pids)
    for pid in set(pids) & set(used_ns):
        mine = [used[each.lease_id] for each in leases if each.pid == pid]
        assert mine == [unit * used_ns[pid] // len(mine)] * len(mine)
