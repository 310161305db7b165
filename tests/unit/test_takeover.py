"""A restarted agent goes on where the one before it was killed: leases, phases, counters, caps, the host's share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.metering import CLEAN, Clock, MoodyMeter, Processes, at, energy_by_job, simulated
from workers.contract import EnergyEntry, Method, Phase, Power, Quality
from workers.errors import InputError
from workers.powercap.notes import LimitNotes
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.host import open_host_meters
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import RETURN_NS, NodeMeter
from workers.telemetry.rapl import RaplMeter
from workers.telemetry.state import from_json
from workers.telemetry.takeover import Told
from workers.units import NS_PER_S

GAP = frozenset({Quality.GAP})
REFRESH_MJ = 35_000
"""When between two looks a counter was refreshed is known to half of 100 ms, which is so much at 700 W."""
PID = 7


class Bench:
    """A node with an H100 (700 W, 70 W idle), whose agent is killed and replaced; one process works on it."""

    def __init__(self, notes: LimitNotes | None = None) -> None:
        self.clock, self.processes = Clock(), Processes()
        self.processes.work(PID, 0.0)
        self.started_s = {PID: 100}
        self.entries: list[EnergyEntry] = []
        self.written = ""
        self.meter = MoodyMeter(self.clock, "H100", processes=self.processes)
        (self.h100,) = (device.uuid for device in self.meter.devices())
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, notes=notes, started=self.started_s.get)
        self.write()

    def write(self) -> None:
        """What an agent does once a second."""
        taken, state = self.node.take()
        self.entries += taken
        self.written = json.dumps(state)

    def replace_agent(
        self,
        *,
        notes: LimitNotes | None = None,
        boot: str | None = None,
        told: Mapping[tuple[str, int], Told] | None = None,
        models: tuple[str, ...] = ("H100",),
    ) -> NodeMeter:
        """The agent is killed, with what it had booked since it wrote, and another starts."""
        self.meter = MoodyMeter(self.clock, *models, processes=self.processes)
        self.node = NodeMeter(
            self.meter,
            node="n1",
            clock_ns=self.clock,
            notes=notes,
            started=self.started_s.get,
            boot=boot,
            resume=from_json(json.loads(self.written)),
            told=told,
        )
        return self.node

    def work(self, milliseconds: float) -> None:
        """The process keeps one processor busy, and so the board."""
        self.clock.pass_ms(milliseconds)
        self.processes.work(PID, milliseconds / 1000)

    def taken(self) -> list[EnergyEntry]:
        self.write()
        return self.entries


def request(phase: Phase = Phase.LOAD, *, job_id: str = "a", pid: int = PID, **power: float) -> LeaseRequest:
    return LeaseRequest(
        job_id=job_id,
        attempt=1,
        devices=("0",),
        pid=pid,
        cpus=1.0,
        phase=phase,
        power=Power.model_validate(power),
    )


def by_phase(entries: list[EnergyEntry]) -> dict[Phase | None, int]:
    found: dict[Phase | None, int] = {}
    for entry in entries:
        found[entry.phase] = found.get(entry.phase, 0) + entry.energy_mj
    return found


def test_a_state_of_another_boot_is_of_no_use() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.write()
    bench.clock.pass_ms(60_000)
    bench.replace_agent(boot="another")
    assert bench.node.snapshot().leases == ()
    bench.clock.pass_ms(1000)
    bench.node.tick()
    assert {entry.quality for entry in bench.taken()} == {CLEAN}


def test_a_counter_that_was_reset_meanwhile_is_bridged_by_power_and_says_so() -> None:
    bench = Bench()
    bench.clock.pass_ms(2000)
    bench.node.tick()
    bench.write()
    bench.clock.pass_ms(1000)
    state = json.loads(bench.written)
    state["meter"] = {}
    bench.written = json.dumps(state)
    bench.replace_agent()
    # 70 W through the second in which nobody looked.
    assert [(e.energy_mj, e.quality) for e in bench.taken()] == [(140_000, CLEAN), (70_000, GAP | {Quality.RESET})]


def test_a_process_number_that_another_process_has_now_holds_nothing() -> None:
    bench = Bench()
    bench.node.open(request(cap_watts=300.0))
    bench.work(1000)
    bench.node.tick()
    bench.write()
    bench.started_s[PID] = 200
    bench.clock.pass_ms(3000)
    bench.replace_agent()
    assert [status.open for status in bench.node.snapshot().leases] == [False]
    assert bench.meter.boards[bench.h100].limit_mw == 700_000
    booked = energy_by_job(bench.taken())
    assert booked[None] == pytest.approx(3 * 70_000, abs=REFRESH_MJ)
    assert sum(booked.values()) == 1000 * 300 + 3 * 70_000


def test_a_lease_is_not_given_to_another_process() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.write()
    bench.replace_agent()
    with pytest.raises(InputError, match=r"attempt 1 of a already holds a lease on n1 \(process 7\)"):
        bench.node.resume(request(pid=8), Told())


def test_a_holder_that_is_not_heard_of_keeps_its_lease_until_it_dies() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.write()
    bench.replace_agent()
    assert bench.node.is_taking_over
    bench.work(RETURN_NS / 1e6)
    bench.node.tick()
    assert not bench.node.is_taking_over
    assert [status.open for status in bench.node.snapshot().leases] == [True]
    del bench.started_s[PID]
    bench.node.tick()
    assert [status.open for status in bench.node.snapshot().leases] == [False]


def test_phases_told_late_are_booked_from_then_on() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.write()
    bench.replace_agent()
    bench.work(RETURN_NS / 1e6)
    bench.node.tick()
    lease = bench.node.resume(request(Phase.TRAIN), Told(phases=((at(0), Phase.LOAD), (at(100), Phase.TRAIN))))
    bench.work(1000)
    bench.node.tick()
    booked = by_phase(bench.taken())
    assert booked == pytest.approx({Phase.LOAD: 5 * 700_000, Phase.TRAIN: 700_000}, abs=REFRESH_MJ)
    assert bench.node.lease_energy_mj(lease.lease_id) == 6 * 700_000


def test_a_device_that_is_not_there_now_is_gone_on_with_when_it_is_back() -> None:
    bench = Bench()
    bench.clock.pass_ms(1000)
    bench.node.tick()
    bench.write()
    (known,) = (device.uuid for device in bench.meter.devices())
    state = json.loads(bench.written)
    state["books"] = {"GPU-other": state["books"][known]}
    bench.written = json.dumps(state)
    bench.replace_agent()
    bench.write()
    assert json.loads(bench.written)["books"].keys() == {"GPU-other", known}
    assert json.loads(bench.written)["books"]["GPU-other"] == state["books"]["GPU-other"]


def test_a_board_that_is_away_for_a_while_is_not_held_by_a_job_that_ended_meanwhile() -> None:
    bench = Bench()
    lease = bench.node.open(request())
    bench.work(10_000)
    bench.node.tick()
    bench.write()
    away = json.loads(bench.written)
    # Another board has its place.
    bench.written = bench.written.replace(bench.h100, "GPU-away")
    bench.replace_agent()
    assert bench.node.lease_energy_mj(lease.lease_id) == pytest.approx(10 * 700_000, abs=REFRESH_MJ)
    bench.started_s.pop(PID)
    bench.clock.pass_ms(90_000)
    bench.node.tick()
    bench.write()
    # The board is back at the agent after that one, and has counted on.
    state = json.loads(bench.written)
    state["meter"], state["books"] = away["meter"], {bench.h100: state["books"]["GPU-away"]}
    bench.written = json.dumps(state)
    before = len(bench.entries)
    bench.replace_agent()
    bench.clock.pass_ms(1000)
    bench.node.tick()
    booked = energy_by_job(bench.entries[:1] + bench.taken()[before:])
    assert booked["a"] == pytest.approx(10 * 700_000, abs=2 * REFRESH_MJ)
    assert booked[None] == pytest.approx(91 * 70_000, abs=2 * REFRESH_MJ)


def test_a_state_of_another_format_is_refused() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="its format is 0, not 1"):
        from_json({**json.loads(bench.written), "format": 0})


def test_what_was_drawn_meanwhile_is_booked_to_the_phases_that_were_told() -> None:
    bench = Bench()
    opened = bench.node.open(request())
    bench.work(1000)
    bench.node.tick()
    bench.write()
    bench.work(4000)
    bench.replace_agent()
    bench.work(1000)
    bench.node.tick()
    told = Told(phases=((at(0), Phase.LOAD), (at(2000), Phase.BASELINE), (at(3000), Phase.TRAIN)))
    lease = bench.node.resume(request(Phase.TRAIN), told)
    assert lease.lease_id == opened.lease_id
    bench.node.tick()
    booked = by_phase(bench.taken())
    true = {Phase.LOAD: 2 * 700_000, Phase.BASELINE: 700_000, Phase.TRAIN: 3 * 700_000}
    assert booked == pytest.approx(true, abs=REFRESH_MJ)
    assert sum(booked.values()) == 6 * 700_000
    assert [(entry.phase, entry.quality) for entry in bench.entries] == [
        (Phase.LOAD, CLEAN),
        (Phase.LOAD, GAP),
        (Phase.BASELINE, GAP),
        (Phase.TRAIN, GAP),
        (Phase.TRAIN, CLEAN),
    ]
    (status,) = bench.node.snapshot().leases
    assert status.energy_mj == 6 * 700_000


def test_a_phase_the_killed_agent_knew_but_had_not_written_is_not_lost() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.work(1000)
    bench.node.tick()
    bench.write()
    bench.work(500)
    bench.node.set_phase(bench.node.snapshot().leases[0].lease.lease_id, Phase.TRAIN)
    bench.work(1500)
    bench.replace_agent()
    bench.node.resume(request(Phase.TRAIN), Told(phases=((at(0), Phase.LOAD), (at(1500), Phase.TRAIN))))
    booked = by_phase(bench.taken())
    assert booked == pytest.approx({Phase.LOAD: 1500 * 700, Phase.TRAIN: 1500 * 700}, abs=REFRESH_MJ)
    assert sum(booked.values()) == 3 * 700_000


def test_a_job_that_ended_meanwhile_is_booked_to_its_end() -> None:
    bench = Bench()
    bench.clock.pass_ms(1000)
    bench.node.tick()
    bench.node.open(request())
    bench.write()
    bench.work(2000)
    bench.clock.pass_ms(1000)
    bench.replace_agent()
    lease = bench.node.resume(request(), Told(phases=((at(1000), Phase.LOAD),), closed_ns=at(3000)))
    bench.node.close(lease.lease_id)
    # Of the two idle seconds one was before the job, and what the board drew above that is the job's.
    assert energy_by_job(bench.taken()) == pytest.approx({None: 2 * 70_000, "a": 2 * 700_000}, abs=REFRESH_MJ)
    assert bench.node.lease_energy_mj(lease.lease_id) == energy_by_job(bench.entries)["a"]


def test_a_job_that_left_a_note_is_booked_to_its_end() -> None:
    bench = Bench()
    bench.clock.pass_ms(1000)
    bench.node.tick()
    bench.node.open(request())
    bench.write()
    del bench.started_s[PID]
    bench.clock.pass_ms(4000)
    told = Told(phases=((at(1000), Phase.LOAD), (at(2000), Phase.TRAIN)), closed_ns=at(3000))
    bench.replace_agent(told={("a", 1, 0): told})
    booked = by_phase(bench.taken())
    assert booked == pytest.approx({None: 3 * 70_000, Phase.LOAD: 70_000, Phase.TRAIN: 70_000}, abs=REFRESH_MJ // 10)


def test_a_close_whose_answer_was_lost_is_answered_again_and_reopens_nothing() -> None:
    bench = Bench()
    lease = bench.node.open(request())
    bench.work(1000)
    bench.node.close(lease.lease_id)
    bench.clock.pass_ms(200)
    bench.node.tick()
    booked_mj = bench.node.lease_energy_mj(lease.lease_id)
    bench.write()
    bench.replace_agent()
    again = bench.node.resume(request(), Told(phases=((at(0), Phase.LOAD),), closed_ns=at(1000)))
    assert not bench.node.is_open(again.lease_id)
    assert bench.node.lease_energy_mj(again.lease_id) == booked_mj > 0


def test_a_lease_the_agent_ended_in_order_is_opened_again_with_what_it_had() -> None:
    bench = Bench()
    lease = bench.node.open(request(cap_watts=300.0))
    bench.work(1000)
    bench.node.close(lease.lease_id)
    again = bench.node.resume(request(Phase.TRAIN, cap_watts=300.0), Told(phases=((at(0), Phase.LOAD),)))
    assert again.lease_id == lease.lease_id
    assert bench.meter.boards[bench.h100].limit_mw == 300_000
    bench.work(1000)
    bench.node.close(lease.lease_id)
    bench.clock.pass_ms(200)
    bench.node.tick()
    assert bench.node.lease_energy_mj(lease.lease_id) == energy_by_job(bench.taken())["a"]


def test_a_cap_that_is_still_held_holds_and_the_limit_from_before_comes_back(tmp_path: Path) -> None:
    bench = Bench(LimitNotes(tmp_path / "killed"))
    (tmp_path / "killed").mkdir()
    bench.meter.set_limit(bench.h100, 650_000)
    lease = bench.node.open(request(cap_watts=300.0))
    bench.write()
    bench.replace_agent(notes=LimitNotes(None))
    assert bench.meter.boards[bench.h100].limit_mw == 300_000
    bench.node.tick()
    assert bench.meter.boards[bench.h100].limit_mw == 300_000
    assert bench.node.cap_watts(lease.lease_id) == 300.0
    bench.node.close(lease.lease_id)
    assert bench.meter.boards[bench.h100].limit_mw == 650_000


def test_an_agent_that_is_killed_while_it_takes_over_is_taken_over_from_the_same_state() -> None:
    bench = Bench()
    bench.node.open(request())
    bench.work(1000)
    bench.node.tick()
    bench.write()
    for _ in range(3):
        bench.work(500)
        bench.replace_agent()
        bench.work(500)
        bench.node.tick()
        assert bench.node.is_taking_over
        bench.write()
    bench.node.resume(request(), Told(phases=((at(0), Phase.LOAD),)))
    assert energy_by_job(bench.taken()) == {"a": 4 * 700_000}


def test_what_used_the_host_meanwhile_is_shared_out_over_the_phases(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.zone("intel-rapl:0", "package-0", energy_uj=1_000_000)
    clock, processes = Clock(), Processes()

    def start(written: str | None) -> NodeMeter:
        meters = open_host_meters("rapl", node="n1", powercap=host.powercap, proc=host.proc, clock_ns=clock)
        return NodeMeter(
            CompositeMeter((simulated(clock, "H100", processes=processes), *meters.meters)),
            node="n1",
            clock_ns=clock,
            usage=meters.usage,
            only_agent=True,
            started=lambda pid: pid,
            resume=None if written is None else from_json(json.loads(written)),
        )

    node = start(None)
    host.start(PID)
    node.open(request())
    entries, state = node.take()
    # Three seconds without an agent, in which the process has half of the busy time; it changes phase after the first.
    clock.pass_ms(3000)
    host.work(PID, 150)
    host.pass_ticks(150, 300)
    host.draw("intel-rapl:0", 60_000_000)
    successor = start(json.dumps(state))
    successor.resume(request(Phase.TRAIN), Told(phases=((at(0), Phase.LOAD), (at(1000), Phase.TRAIN))))
    cpu = [entry for entry in [*entries, *successor.take()[0]] if entry.kind == "cpu"]
    assert by_phase([entry for entry in cpu if entry.job_id == "a"]) == {Phase.LOAD: 10_000, Phase.TRAIN: 20_000}
    assert energy_by_job(cpu) == {None: 30_000, "a": 30_000}
    assert {entry.method for entry in cpu} == {Method.COUNTER}
    assert all(Quality.GAP in entry.quality for entry in cpu)


def test_a_counter_that_wrapped_before_or_meanwhile_goes_on(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.zone("intel-rapl:0", "package-0", energy_uj=200_000_000_000, range_uj=262_000_000_000)
    now_ns = [0]

    def meter() -> RaplMeter:
        return RaplMeter(node="n", root=host.powercap, proc=host.proc, clock_ns=Clock(), monotonic_ns=lambda: now_ns[0])

    first = meter()
    (device,) = first.devices()
    counted_mj = [first.read(device.uuid).energy_mj]
    for _ in range(3):
        now_ns[0] += 600 * NS_PER_S
        host.draw("intel-rapl:0", 100_000_000_000)
        counted_mj.append(first.read(device.uuid).energy_mj)
        memory = json.loads(json.dumps(first.memory()))
        now_ns[0] += 600 * NS_PER_S
        host.draw("intel-rapl:0", 90_000_000_000)
        first = meter()
        first.recall(memory, ())
        counted_mj.append(first.read(device.uuid).energy_mj)
    assert [after - before for before, after in itertools.pairwise(counted_mj)] == [
        100_000_000,
        90_000_000,
    ] * 3


def test_a_modelled_cpu_goes_on_through_the_time_without_an_agent(tmp_path: Path) -> None:
    host, clock = FakeHost(tmp_path), Clock()

    def agent() -> tuple[CompositeMeter, str]:
        meter = CompositeMeter(
            open_host_meters("modelled", node="n", powercap=host.powercap, proc=host.proc, clock_ns=clock).meters
        )
        return meter, meter.devices()[0].uuid

    unbroken, device = agent()
    before, _ = agent()
    for meter in (unbroken, before):
        meter.read(device)
    clock.pass_ms(1000)
    host.pass_ticks(100, 100)
    before.read(device)
    memory = json.loads(json.dumps(before.memory()))
    clock.pass_ms(1000)
    host.pass_ticks(50, 150)
    after, _ = agent()
    after.recall(memory, ())
    unbroken_mj = unbroken.read(device).energy_mj
    assert after.read(device).energy_mj == pytest.approx(unbroken_mj, abs=1)
    assert unbroken_mj is not None
    assert unbroken_mj > 0


def test_what_a_state_holds_is_bounded() -> None:
    bench = Bench()
    for number in range(50):
        lease = bench.node.open(request(job_id=f"job-{number}"))
        bench.work(1000)
        bench.node.close(lease.lease_id)
        bench.clock.pass_ms(1000)
        bench.node.tick()
        bench.write()
    size = len(bench.written)
    bench.clock.pass_ms(61_000)
    bench.node.tick()
    bench.write()
    state = json.loads(bench.written)
    assert (state["closed"], state["held"], state["books"][bench.h100]["by_lease"]) == ([], [], {})
    assert size < 50_000
