"""The books balance, whatever happens: every joule a counter shows is booked once, to an attempt or to idle."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.metering import START_NS, Clock, DearMeter, Processes, assert_covered_once, claim, device, energy_by_job
from workers.contract import EnergyEntry, Lease, Method, Phase, Power, Quality, Reading
from workers.errors import CapError, InputError
from workers.telemetry.booking import CLOSELY_NS, DeviceBook
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.merging import merge
from workers.telemetry.node import KEEP_CLOSED_NS, NodeMeter
from workers.telemetry.refresh import SLOWEST_NS
from workers.telemetry.stretches import Claim
from workers.units import MW_PER_W, NS_PER_S, PJ_PER_MJ


@dataclass(frozen=True)
class Look:
    """Time passes and the device is read; ``grown_mj`` 0 is a counter that has not refreshed."""

    passed_ns: int
    grown_mj: int
    power_mw: int | None
    silent: bool = False


@dataclass(frozen=True)
class Sense:
    """Time passes and power is asked for; the counter, which has ``grown_mj`` meanwhile, is not looked at."""

    passed_ns: int
    grown_mj: int
    power_mw: int | None


@dataclass(frozen=True)
class Edge:
    """Time passes and the device changes hands."""

    passed_ns: int
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Reset:
    """Time passes and the counter is found to have started anew."""

    passed_ns: int
    kept_mj: int
    power_mw: int | None


Step = Look | Sense | Edge | Reset
GAP_NS = device().gap_ms * 1_000_000

NANOSECONDS = st.integers(0, 300_000_000) | st.sampled_from([0, 1, GAP_NS, GAP_NS + 1, 3600 * NS_PER_S])
MOMENTS = st.integers(0, GAP_NS // 50)
"""Fifty of them are no gap."""
GROWTHS = st.sampled_from([0, 0, 1, 2, 3]) | st.integers(0, 200_000) | st.just(2**50)
POWERS = st.none() | st.integers(0, 700_000)
CLAIMS = st.lists(
    st.builds(claim, st.sampled_from("abc"), st.none() | st.sampled_from(Phase)),
    max_size=3,
    unique_by=lambda made: made.job_id,
).map(tuple)
LOOKS = st.builds(Look, NANOSECONDS, GROWTHS, POWERS)
EDGES = st.builds(Edge, NANOSECONDS, CLAIMS)
SENSES = st.builds(Sense, NANOSECONDS, GROWTHS, POWERS)
RESETS = st.builds(Reset, NANOSECONDS, st.integers(0, 1000), POWERS)
STEPS = st.lists(LOOKS | EDGES, max_size=50)
QUICK_STEPS = st.lists(
    st.builds(Look, MOMENTS, GROWTHS, POWERS, st.booleans()) | st.builds(Edge, MOMENTS, CLAIMS), max_size=49
)


class Told:
    """A book that was told a story, and what the device itself would say of it."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        method: Method = Method.COUNTER,
        take_each: bool = False,
        is_watched: bool = False,
    ) -> None:
        self.book = DeviceBook(device(method), is_watched=is_watched)
        self.entries: list[EnergyEntry] = []
        self.now_ns, self.counter_mj = START_NS, 5_000_000
        self.looks: list[tuple[int | None, Reading]] = []
        """Each reading, and when the device first changed hands since the one before it."""
        self.turned_ns: int | None = None
        self._read(0, silent=False)
        for step in steps:
            self.now_ns += step.passed_ns
            self._live(step)
            if take_each:
                self.entries += self.book.take()
        self.entries += self.book.take()

    def _live(self, step: Step) -> None:
        if isinstance(step, Edge):
            self.book.edge(self.now_ns, step.claims)
            self.turned_ns = self.now_ns if self.turned_ns is None else self.turned_ns
            return
        if isinstance(step, Sense):
            self.counter_mj += step.grown_mj
            self.book.sense(Reading(device="GPU-1", time_ns=self.now_ns, energy_mj=None, power_mw=step.power_mw))
            return
        self.counter_mj = self.counter_mj + step.grown_mj if isinstance(step, Look) else step.kept_mj
        self._read(step.power_mw, silent=isinstance(step, Look) and step.silent)

    def _read(self, power_mw: int | None, *, silent: bool) -> None:
        reading = Reading(
            device="GPU-1",
            time_ns=self.now_ns,
            energy_mj=None if silent else self.counter_mj,
            power_mw=power_mw,
        )
        self.looks.append((self.turned_ns, reading))
        if len(self.looks) > 1 and reading.time_ns > self.looks[-2][1].time_ns:
            self.turned_ns = None
        self.book.observe(reading)

    @property
    def readings(self) -> list[Reading]:
        return [reading for _, reading in self.looks]

    def energy_mj(self) -> int:
        return sum(entry.energy_mj for entry in self.entries)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_entries_are_the_counters_growth_to_the_millijoule(steps: list[Step]) -> None:
    told = Told(steps)
    assert told.energy_mj() == told.book.booked_mj == told.counter_mj - 5_000_000
    assert all(entry.energy_mj >= 0 for entry in told.entries)
    by_lease = {f"lease-{job}": mj for job, mj in energy_by_job(told.entries).items() if job is not None}
    assert told.book.booked_by_lease == by_lease


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_entries_fill_the_time_between_the_first_and_the_last_movement_once(steps: list[Step]) -> None:
    told = Told(steps)
    if told.entries:
        last = next(reading for reading in told.readings if reading.energy_mj == told.counter_mj)
        assert last.time_ns - SLOWEST_NS // 2 <= told.book.settled_ns <= last.time_ns
        if last.time_ns > START_NS:
            assert_covered_once(told.entries, START_NS, told.book.settled_ns)


@settings(max_examples=150, deadline=None)
@given(st.lists(LOOKS | SENSES | EDGES, max_size=50), st.booleans())
def test_power_that_is_followed_between_looks_at_the_counter_books_nothing_and_loses_nothing(
    steps: list[Step], is_watched: bool
) -> None:
    told = Told([*steps, Look(CLOSELY_NS, 0, 100), Look(CLOSELY_NS, 0, 100)], is_watched=is_watched)
    assert told.energy_mj() == told.counter_mj - 5_000_000
    assert all(entry.method is Method.COUNTER and Quality.FALLBACK not in entry.quality for entry in told.entries)
    if told.entries:
        assert_covered_once(told.entries, START_NS, told.book.settled_ns)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.builds(Look, MOMENTS, GROWTHS, POWERS, st.booleans()) | st.builds(Edge, MOMENTS, CLAIMS), max_size=49)
)
def test_a_counter_that_falls_silent_for_less_than_the_gap_keeps_the_books_exact(steps: list[Step]) -> None:
    told = Told([*steps, Look(1, 1, None)])
    assert told.energy_mj() == told.counter_mj - 5_000_000
    assert not any(Quality.FALLBACK in entry.quality for entry in told.entries)


@settings(max_examples=150, deadline=None)
@given(st.lists(LOOKS | EDGES | RESETS, max_size=50))
def test_a_reset_touches_no_joule_before_or_after_it(steps: list[Step]) -> None:
    told = Told(steps)
    assert told.energy_mj() == told.book.booked_mj
    counted, booked_mj = 0, 5_000_000
    for reading in told.readings:
        assert reading.energy_mj is not None
        counted += max(0, reading.energy_mj - booked_mj)
        booked_mj = reading.energy_mj
    clean = [entry for entry in told.entries if Quality.RESET not in entry.quality]
    assert sum(entry.energy_mj for entry in clean) == counted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(Look, NANOSECONDS, GROWTHS, st.integers(0, 700_000), st.just(True)) | EDGES, max_size=50))
def test_without_a_counter_no_part_of_a_millijoule_is_lost(steps: list[Step]) -> None:
    told = Told([Look(0, 0, 0, silent=True), *steps], method=Method.INTEGRATED)
    drawn_pj = 0
    for (_, a), (turned_ns, b) in itertools.pairwise(told.looks[1:]):
        assert a.power_mw is not None
        assert b.power_mw is not None
        if turned_ns is None:
            drawn_pj += (a.power_mw + b.power_mw) * (b.time_ns - a.time_ns) // 2
        else:
            drawn_pj += a.power_mw * (turned_ns - a.time_ns) + b.power_mw * (b.time_ns - turned_ns)
    assert told.energy_mj() == drawn_pj // PJ_PER_MJ


@settings(max_examples=150, deadline=None)
@given(st.lists(LOOKS | EDGES | RESETS, max_size=50))
def test_a_watched_book_owes_nothing_once_an_edge_is_a_while_ago(steps: list[Step]) -> None:
    later = [Look(CLOSELY_NS, 1000, 100), Look(CLOSELY_NS, 1000, 100)]
    told, watched = Told([*steps, *later]), Told([*steps, *later], is_watched=True)
    assert not watched.book.wants_look(watched.now_ns)
    assert watched.energy_mj() == watched.book.booked_mj
    if not any(isinstance(step, Reset) for step in steps):
        assert watched.energy_mj() == told.energy_mj() == told.counter_mj - 5_000_000


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_counters_entries_are_witnessed_by_all_the_power_that_was_read(steps: list[Step]) -> None:
    told = Told([step for step in steps if isinstance(step, Edge) or step.power_mw is not None])
    clean = [entry for entry in told.entries if entry.witness_mj is not None]
    assert all(entry.witness_mj >= 0 for entry in clean)
    drawn_mj = sum(
        max(a.power_mw or 0, b.power_mw or 0) * (b.time_ns - a.time_ns) // PJ_PER_MJ + 1
        for a, b in itertools.pairwise(told.readings)
    )
    assert sum(entry.witness_mj for entry in clean) <= drawn_mj


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_taking_entries_early_changes_no_account(steps: list[Step]) -> None:
    once, often = Told(steps), Told(steps, take_each=True)
    assert energy_by_job(often.entries) == energy_by_job(once.entries)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_merging_keeps_the_energy_and_time_of_every_account(steps: list[Step]) -> None:
    fine = Told(steps, take_each=True).entries
    coarse = merge(fine)
    assert accounts(coarse) == accounts(fine)
    assert len(coarse) <= len(fine)
    assert merge(coarse) == coarse


def accounts(entries: Sequence[EnergyEntry]) -> tuple[Counter[object], Counter[object]]:
    """Energy and time of each kind of entry."""
    energy: Counter[object] = Counter()
    time: Counter[object] = Counter()
    for entry in entries:
        kind = replace(entry, start_ns=0, end_ns=0, energy_mj=0, witness_mj=None)
        energy[kind] += entry.energy_mj
        time[kind] += entry.end_ns - entry.start_ns
    return energy, time


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**50), st.integers(2, 9))
def test_sharers_get_equal_parts_that_add_up(grown_mj: int, sharers: int) -> None:
    told = Told([Edge(0, tuple(claim(f"job-{n}") for n in range(sharers))), Look(NS_PER_S, grown_mj, 1000)])
    parts = [entry.energy_mj for entry in told.entries]
    assert sum(parts) == grown_mj
    assert len(parts) == sharers
    assert max(parts) - min(parts) <= 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(Look, st.integers(-GAP_NS, GAP_NS), GROWTHS, POWERS) | EDGES, max_size=30))
def test_a_clock_that_is_set_back_costs_no_joule(steps: list[Step]) -> None:
    told = Told(steps)
    assert told.energy_mj() == told.counter_mj - 5_000_000
    assert all(START_NS <= entry.start_ns <= entry.end_ns for entry in told.entries)


class NodeLife(RuleBasedStateMachine):
    """A node with two simulated boards: attempts come, share, change phase, are capped, die and leave in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.processes = Clock(), Processes()
        self.meter = DearMeter(self.clock, "H100", "V100", processes=self.processes)
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, started=self.started)
        self.open: dict[str, tuple[Lease, Power]] = {}
        self.phases: dict[str, list[tuple[int, Phase | None]]] = {}
        self.left: dict[str, tuple[Lease, Power]] = {}
        self.left_ns: dict[str, int] = {}
        self.entries: list[EnergyEntry] = []
        self.opened = 0

    def started(self, pid: int) -> int | None:
        return pid if pid in self.processes.used_s else None

    @rule(milliseconds=st.integers(0, 300) | st.sampled_from([2500, 70_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.pass_ms(milliseconds)

    @rule()
    def the_sampler_looks(self) -> None:
        self.node.sample()

    @rule(
        boards=st.sets(st.sampled_from("01"), min_size=1),
        watts=st.sampled_from([None, None, 200.0, 250.0, 300.0, 5000.0]),
        phase=st.none() | st.sampled_from(Phase),
    )
    def an_attempt_comes(self, boards: set[str], watts: float | None, phase: Phase | None) -> None:
        self.opened += 1
        power = Power(cap_watts=watts)
        request = LeaseRequest(
            job_id=f"job-{self.opened}",
            attempt=1,
            devices=tuple(sorted(boards)),
            pid=self.opened,
            cpus=1.0,
            phase=phase,
            power=power,
        )
        self.processes.used_s[self.opened] = 0.0
        try:
            lease = self.node.open(request)
        except CapError:
            assert watts == 5000.0
            return
        self.open[lease.lease_id] = (lease, power)
        self.phases[lease.lease_id] = [(self.clock(), phase)]

    @precondition(lambda self: self.open)
    @rule(data=st.data(), phase=st.none() | st.sampled_from(Phase))
    def an_attempt_changes_phase(self, data: st.DataObject, phase: Phase | None) -> None:
        lease_id = data.draw(st.sampled_from(list(self.open)))
        self.phases[lease_id].append((self.clock(), phase))
        self.node.set_phase(lease_id, phase)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), seconds=st.floats(0, 0.5))
    def a_process_works(self, data: st.DataObject, seconds: float) -> None:
        lease, _ = self.open[data.draw(st.sampled_from(list(self.open)))]
        if lease.pid in self.processes.used_s:
            self.processes.work(lease.pid, seconds)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_process_dies(self, data: st.DataObject) -> None:
        lease, _ = self.open[data.draw(st.sampled_from(list(self.open)))]
        self.processes.used_s.pop(lease.pid, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def an_attempt_leaves(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(list(self.open)))
        self.node.close(lease_id)
        self.left[lease_id] = self.open.pop(lease_id)
        self.left_ns[lease_id] = self.clock()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def nobody_opens_twice(self, data: st.DataObject) -> None:
        lease, _ = self.open[data.draw(st.sampled_from(list(self.open)))]
        again = LeaseRequest(job_id=lease.job_id, attempt=1, devices=("0",), pid=1, cpus=1.0)
        try:
            self.node.open(again)
        except InputError:
            return
        raise AssertionError("a second lease of one attempt was opened")

    @invariant()
    def the_books_balance(self) -> None:
        snapshot = self.node.snapshot()
        self.entries += self.node.take_entries()
        for status in snapshot.devices:
            mine = [entry for entry in self.entries if entry.device == status.device.uuid]
            assert sum(entry.energy_mj for entry in mine) == status.energy_mj
            assert_covered_once(merge(mine), START_NS, max((e.end_ns for e in mine), default=START_NS))
            shown_pj = status.energy_mj * PJ_PER_MJ
            assert shown_pj <= self.meter.boards[status.device.uuid].true_energy_pj
        booked = energy_by_job(self.entries)
        assert all(s.energy_mj == booked.get(s.lease.job_id, 0) for s in snapshot.leases)

    @invariant()
    def leases_are_forgotten_a_minute_after_their_end(self) -> None:
        known = {status.lease.lease_id for status in self.node.snapshot().leases}
        assert self.open.keys() <= known
        horizon_ns = self.clock() - KEEP_CLOSED_NS
        assert all(self.left_ns.get(lease_id, horizon_ns) >= horizon_ns for lease_id in known - self.open.keys())

    @invariant()
    def the_lowest_cap_holds_and_no_cap_outlives_its_lease(self) -> None:
        for uuid, board in self.meter.boards.items():
            caps = [power.cap_watts for lease, power in self.open.values() if uuid in lease.devices and power.cap_watts]
            assert board.limit_mw == min(caps, default=board.profile.tdp_w) * MW_PER_W

    def teardown(self) -> None:
        self.node.shutdown()
        assert all(board.limit_mw == board.profile.tdp_w * MW_PER_W for board in self.meter.boards.values())


TestNodeLife = NodeLife.TestCase
TestNodeLife.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
