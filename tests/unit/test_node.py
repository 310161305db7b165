"""One node: leases, phases, devices that fail and come back, and power limits that always go back to what they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.metering import START_NS, Clock, DearMeter, MoodyMeter, Processes, at, brief, energy_by_job
from workers.contract import Device, Method, Phase, Power, Reading
from workers.errors import CapError, InputError, UnknownNameError
from workers.powercap.notes import LimitNotes
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.meter import LimitRange
from workers.telemetry.node import NodeMeter
from workers.telemetry.snapshot import DeviceStatus, LeaseStatus


class Bench:
    """A node with an H100 (200 to 700 W) and a V100 (150 to 300 W), a clock, and processes to make busy."""

    def __init__(self, notes: LimitNotes | None = None) -> None:
        self.clock, self.processes = Clock(), Processes()
        self.meter = MoodyMeter(self.clock, "H100", "V100", processes=self.processes)
        self.h100, self.v100 = (device.uuid for device in self.meter.devices())
        self.notes = notes
        self.node = self.restart()

    def restart(self) -> NodeMeter:
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, notes=self.notes)
        return self.node

    def open(self, job_id: str, *devices: str, **power: float) -> str:
        return self.node.open(request(job_id, *devices, **power)).lease_id

    def status(self, uuid: str) -> DeviceStatus:
        return next(status for status in self.node.snapshot().devices if status.device.uuid == uuid)

    def limit_w(self, uuid: str) -> float:
        return self.meter.boards[uuid].limit_mw / 1000


def request(job_id: str, *devices: str, **power: float) -> LeaseRequest:
    return LeaseRequest(
        job_id=job_id, attempt=1, devices=devices or ("0",), pid=7, cpus=1.0, power=Power.model_validate(power)
    )


def test_a_second_lease_of_one_attempt_is_refused_and_names_the_holder() -> None:
    bench = Bench()
    bench.open("a")
    with pytest.raises(InputError, match=r"attempt 1 of a already holds a lease on n1 \(process 7\)\. Wait"):
        bench.open("a", "1")
    assert len(bench.node.snapshot().leases) == 1


def test_another_attempt_of_the_same_job_is_no_second_lease() -> None:
    bench = Bench()
    bench.open("a")
    bench.node.open(replace(request("a"), attempt=2))
    assert [status.lease.attempt for status in bench.node.snapshot().leases] == [1, 2]


def test_an_unknown_device_lists_the_known_ones_and_opens_nothing() -> None:
    bench = Bench()
    with pytest.raises(UnknownNameError) as raised:
        bench.open("a", "0", "2")
    assert str(raised.value) == f"unknown device '2'. Known: 0 ({bench.h100}), 1 ({bench.v100})."
    assert bench.node.snapshot().leases == ()


def test_a_lease_that_is_not_open_has_no_phase_and_no_pace() -> None:
    bench = Bench()
    lease_id = bench.open("a")
    bench.node.close(lease_id)
    bench.node.close(lease_id)
    with pytest.raises(InputError, match=rf"lease {lease_id} is not open on n1; open one first"):
        bench.node.set_phase(lease_id, Phase.TRAIN)
    with pytest.raises(InputError, match="is not open on n1"):
        bench.node.speed(lease_id)


def test_a_device_that_fails_shows_no_figure_counts_errors_and_comes_back_with_all_its_joules() -> None:
    bench = Bench()
    bench.open("a")
    bench.clock.pass_ms(1000)
    bench.meter.broken = {bench.h100}
    down = bench.status(bench.h100)
    assert (down.up, down.read_errors) == (False, 1)
    assert (down.energy_mj, down.power_mw, down.limit_mw, down.utilization) == (None, None, None, None)
    assert bench.status(bench.v100).up
    bench.clock.pass_ms(1500)
    bench.meter.broken = set()
    up = bench.status(bench.h100)
    assert (up.up, up.read_errors, up.energy_mj) == (True, 2, 70 * 2500)
    assert energy_by_job(e for e in bench.node.take_entries() if e.device == bench.h100) == {"a": 70 * 2500}


def test_a_lease_on_a_device_that_fails_is_settled_rather_than_waited_for() -> None:
    bench = Bench()
    lease_id = bench.open("a")
    bench.meter.broken = {bench.h100}
    bench.node.close(lease_id)
    assert bench.node.is_settled(lease_id)


def test_a_node_starts_with_a_device_that_cannot_be_read() -> None:
    bench = Bench()
    bench.meter.broken = {bench.h100}
    bench.restart()
    assert not bench.status(bench.h100).up
    bench.meter.broken = set()
    assert bench.status(bench.h100).up


class SilentMeter(MoodyMeter):
    """Boards whose counter says nothing."""

    def devices(self) -> tuple[Device, ...]:
        return tuple(replace(device, method=self.method) for device in super().devices())

    method = Method.COUNTER

    def read(self, device: str) -> Reading:
        return replace(super().read(device), energy_mj=None)


def test_a_counter_that_falls_silent_shows_no_energy_rather_than_another_figure() -> None:
    clock = Clock()
    node = NodeMeter(SilentMeter(clock, "H100"), node="n1", clock_ns=clock)
    clock.pass_ms(5000)
    (status,) = node.snapshot().devices
    assert (status.energy_mj, status.power_mw) == (None, 70_000)


def test_without_a_counter_the_energy_shown_is_what_was_booked() -> None:
    clock = Clock()
    meter = SilentMeter(clock, "H100")
    meter.method = Method.INTEGRATED
    node = NodeMeter(meter, node="n1", clock_ns=clock)
    clock.pass_ms(1000)
    (status,) = node.snapshot().devices
    assert status.energy_mj == 70_000


def test_joules_go_to_idle_to_each_phase_and_to_idle_again() -> None:
    bench = Bench()
    # Each look is halfway between two refreshes of the counter, as the book takes it to be, so all is exact.
    bench.clock.pass_ms(150)
    lease_id = bench.node.open(replace(request("a"), phase=Phase.LOAD)).lease_id
    bench.clock.pass_ms(200)
    bench.node.set_phase(lease_id, Phase.TRAIN)
    bench.clock.pass_ms(300)
    bench.node.close(lease_id)
    bench.clock.pass_ms(400)
    bench.node.tick()
    mine = [entry for entry in bench.node.take_entries() if entry.device == bench.h100]
    assert brief(mine) == [
        (0, 150, 10_500, None),
        (150, 350, 14_000, "a"),
        (350, 650, 21_000, "a"),
        (650, 1000, 24_500, None),
    ]
    assert [entry.phase for entry in mine] == [None, Phase.LOAD, Phase.TRAIN, None]
    assert bench.node.lease_energy_mj(lease_id) == 35_000


def test_a_closed_lease_is_settled_once_the_counter_has_moved_past_its_end() -> None:
    bench = Bench()
    lease_id = bench.open("a")
    bench.clock.pass_ms(150)
    assert not bench.node.is_settled(lease_id)
    bench.node.close(lease_id)
    bench.clock.pass_ms(40)
    bench.node.tick()
    assert not bench.node.is_settled(lease_id)
    bench.clock.pass_ms(20)
    bench.node.tick()
    assert bench.node.is_settled(lease_id)
    assert bench.node.lease_energy_mj(lease_id) == 70 * 150


def test_a_closed_lease_stays_in_the_snapshot_for_a_minute() -> None:
    bench = Bench()
    lease_id = bench.open("a")
    bench.clock.pass_ms(150)
    bench.node.close(lease_id)
    bench.clock.pass_ms(60_000)
    (status,) = bench.node.snapshot().leases
    assert (status.lease.lease_id, status.energy_mj, status.open) == (lease_id, 70 * 150, False)
    bench.clock.pass_ms(1)
    assert bench.node.snapshot().leases == ()


def test_a_snapshot_reads_the_devices_now() -> None:
    bench = Bench()
    lease_id = bench.open("a", "1")
    bench.clock.pass_ms(1000)
    snapshot = bench.node.snapshot()
    assert snapshot.node == "n1"
    assert [(s.energy_mj, s.power_mw, s.limit_mw) for s in snapshot.devices] == [
        (70_000, 70_000, 700_000),
        (40_000, 40_000, 300_000),
    ]
    (status,) = snapshot.leases
    assert status == LeaseStatus(lease=status.lease, energy_mj=40_000, open=True)
    assert (status.lease.lease_id, status.lease.devices, status.lease.opened_ns) == (lease_id, (bench.v100,), START_NS)


def test_a_simulated_board_follows_its_lease_and_forgets_it_when_it_closes() -> None:
    bench = Bench()
    bench.processes.work(7, 0.0)
    lease_id = bench.open("a")
    for power_mw in (700_000, 70_000):
        bench.clock.pass_ms(1000)
        bench.processes.work(7, 1.0)
        assert bench.status(bench.h100).power_mw == power_mw
        bench.node.close(lease_id)


def test_a_device_named_twice_is_leased_once() -> None:
    bench = Bench()
    bench.open("a", "1", bench.v100)
    (status,) = bench.node.snapshot().leases
    assert status.lease.devices == (bench.v100,)


def test_a_lease_without_devices_is_booked_nothing() -> None:
    bench = Bench()
    lease_id = bench.node.open(replace(request("a"), devices=())).lease_id
    assert bench.node.speed(lease_id) is None
    bench.clock.pass_ms(1000)
    bench.node.close(lease_id)
    assert bench.node.is_settled(lease_id)
    assert bench.node.lease_energy_mj(lease_id) == 0
    bench.node.tick()
    assert energy_by_job(bench.node.take_entries()) == {None: 110_000}


def test_the_pace_is_that_of_the_slowest_device() -> None:
    bench = Bench()
    lease_id = bench.open("a", "0", "1")
    assert bench.node.speed(lease_id) == 15.7 / 66.9


@pytest.mark.parametrize(
    ("power", "sentence"),
    [
        ({"cap_watts": 199.0}, "cannot be limited to 199 W: it takes 200 to 700 W"),
        ({"cap_watts": 701.0}, "cannot be limited to 701 W: it takes 200 to 700 W"),
        ({"cap_watts": 0.0001}, "cannot be limited to 0 W: it takes 200 to 700 W"),
        ({"cap_percent": 10.0}, "cannot be limited to 70 W: it takes 200 to 700 W"),
    ],
)
def test_a_cap_out_of_range_names_the_range_and_changes_nothing(power: dict[str, float], sentence: str) -> None:
    bench = Bench()
    with pytest.raises(CapError, match=sentence):
        bench.open("a", **power)
    assert bench.limit_w(bench.h100) == 700
    assert bench.node.snapshot().leases == ()
    bench.open("a")


def test_a_cap_that_fits_one_device_alone_is_set_on_none() -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 650_000)
    with pytest.raises(CapError, match=rf"{bench.v100} cannot be limited to 400 W: it takes 150 to 300 W"):
        bench.open("a", "0", "1", cap_watts=400.0)
    assert (bench.limit_w(bench.h100), bench.limit_w(bench.v100)) == (650, 300)


def test_a_cap_in_watts_and_in_percent_is_refused() -> None:
    bench = Bench()
    with pytest.raises(InputError, match=r"power.cap_watts and power.cap_percent are both given\. Give one"):
        bench.open("a", cap_watts=300.0, cap_percent=50.0)
    assert bench.limit_w(bench.h100) == 700


def test_a_board_that_refuses_a_cap_is_left_alone_afterwards() -> None:
    bench = Bench()
    bench.meter.refusals = 1
    with pytest.raises(CapError, match="Run the agent as root"):
        bench.open("a", cap_watts=300.0)
    bench.meter.refusals = 1
    bench.node.tick()
    assert bench.meter.refusals == 1
    assert bench.status(bench.h100).read_errors == 0


def test_a_cap_holds_while_the_lease_is_open_and_then_the_limit_is_what_it_was() -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 650_000)
    lease_id = bench.open("a", cap_watts=300.0)
    assert (bench.limit_w(bench.h100), bench.node.cap_watts(lease_id)) == (300, 300.0)
    bench.node.close(lease_id)
    assert (bench.limit_w(bench.h100), bench.node.cap_watts(lease_id)) == (650, None)


def test_a_cap_in_percent_is_of_the_default_limit() -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 650_000)
    bench.open("a", cap_percent=50.0)
    assert bench.limit_w(bench.h100) == 350


def test_of_two_caps_the_lowest_holds_whichever_ends_first() -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 650_000)
    low, high = bench.open("low", cap_watts=300.0), bench.open("high", cap_watts=500.0)
    assert bench.limit_w(bench.h100) == 300
    bench.node.close(low)
    assert bench.limit_w(bench.h100) == 500
    low = bench.open("low-again", cap_watts=400.0)
    assert bench.limit_w(bench.h100) == 400
    bench.node.close(high)
    assert bench.limit_w(bench.h100) == 400
    bench.node.close(low)
    assert bench.limit_w(bench.h100) == 650


def test_what_is_enforced_for_the_moment_is_not_taken_for_what_was_set() -> None:
    class Throttled(MoodyMeter):
        """A board that a thermal limiter holds below the limit that was set."""

        def read(self, device: str) -> Reading:
            return replace(super().read(device), limit_mw=250_000)

    clock = Clock()
    meter = Throttled(clock, "H100")
    (board,) = meter.devices()
    node = NodeMeter(meter, node="n1", clock_ns=clock)
    node.close(node.open(request("a", cap_watts=300.0)).lease_id)
    assert meter.limit_range(board.uuid) == LimitRange(
        min_mw=200_000, max_mw=700_000, default_mw=700_000, set_mw=700_000
    )


def test_shutdown_closes_leases_books_them_and_puts_limits_back() -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 650_000)
    bench.open("a", cap_watts=300.0)
    bench.clock.pass_ms(1000)
    bench.node.shutdown()
    assert bench.limit_w(bench.h100) == 650
    assert bench.meter.closed
    assert energy_by_job(bench.node.take_entries()) == {"a": 70_000, None: 40_000}


def test_a_board_that_refuses_once_at_shutdown_is_asked_again() -> None:
    bench = Bench()
    bench.open("a", cap_watts=300.0)
    bench.meter.refusals = 1
    bench.node.shutdown()
    assert bench.limit_w(bench.h100) == 700


def test_a_board_that_refuses_its_old_limit_is_counted_and_asked_again_at_the_next_tick() -> None:
    bench = Bench()
    lease_id = bench.open("a", cap_watts=300.0)
    bench.meter.refusals = 1
    bench.node.close(lease_id)
    assert bench.limit_w(bench.h100) == 300
    assert bench.status(bench.h100).read_errors == 1
    assert bench.limit_w(bench.h100) == 700


def test_a_cap_that_a_board_refuses_to_loosen_is_loosened_at_the_next_tick() -> None:
    bench = Bench()
    low = bench.open("low", cap_watts=300.0)
    bench.open("high", cap_watts=500.0)
    bench.meter.refusals = 1
    bench.node.close(low)
    assert bench.limit_w(bench.h100) == 300
    bench.node.tick()
    assert bench.limit_w(bench.h100) == 500


def test_a_new_cap_takes_the_place_of_a_limit_that_is_still_owed() -> None:
    bench = Bench()
    first = bench.open("a", cap_watts=300.0)
    bench.meter.refusals = 1
    bench.node.close(first)
    second = bench.open("b", cap_watts=400.0)
    bench.node.tick()
    assert bench.limit_w(bench.h100) == 400
    bench.node.close(second)
    assert bench.limit_w(bench.h100) == 700


def test_a_limit_left_behind_survives_a_cap_that_is_refused(tmp_path: Path) -> None:
    bench = Bench(LimitNotes(tmp_path))
    (tmp_path / f"{bench.h100}.limit").write_text("650000\n")
    bench.meter.set_limit(bench.h100, 300_000)
    bench.meter.refusals = 1
    with pytest.raises(CapError, match="cannot be set"):
        bench.open("a", cap_watts=400.0)
    bench.node.tick()
    assert bench.limit_w(bench.h100) == 650


def test_a_limit_that_a_killed_agent_left_behind_is_put_back_at_the_next_start(tmp_path: Path) -> None:
    bench = Bench()
    bench.meter.set_limit(bench.h100, 300_000)
    (tmp_path / f"{bench.h100}.limit").write_text("650000\n")
    bench.notes = LimitNotes(tmp_path)
    bench.restart()
    assert bench.limit_w(bench.h100) == 650
    assert list(tmp_path.iterdir()) == []


def test_a_note_is_kept_for_as_long_as_a_cap_and_no_longer(tmp_path: Path) -> None:
    bench = Bench(LimitNotes(tmp_path))
    bench.meter.set_limit(bench.h100, 650_000)
    first, second = bench.open("a", cap_watts=300.0), bench.open("b", cap_watts=400.0)
    assert (tmp_path / f"{bench.h100}.limit").read_text() == "650000\n"
    bench.node.close(first)
    assert (tmp_path / f"{bench.h100}.limit").read_text() == "650000\n"
    bench.node.close(second)
    assert list(tmp_path.iterdir()) == []


def test_two_agents_cannot_cap_one_board_and_the_second_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(LimitNotes(tmp_path))
    bench.open("a", cap_watts=300.0)
    other = NodeMeter(bench.meter, node="n2", clock_ns=bench.clock, notes=LimitNotes(tmp_path))
    with pytest.raises(CapError, match=rf"{bench.h100} is capped by another agent of this machine\. Lease from that"):
        other.open(request("b", cap_watts=200.0))
    assert bench.limit_w(bench.h100) == 300
    bench.node.shutdown()
    lease_id = other.open(request("b", cap_watts=200.0)).lease_id
    other.close(lease_id)
    assert bench.limit_w(bench.h100) == 700


def test_a_cap_wins_over_a_limit_that_was_left_behind_and_the_oldest_limit_comes_back(tmp_path: Path) -> None:
    bench = Bench(LimitNotes(tmp_path))
    (tmp_path / f"{bench.h100}.limit").write_text("650000\n")
    bench.meter.set_limit(bench.h100, 300_000)
    lease_id = bench.open("a", cap_watts=400.0)
    assert bench.limit_w(bench.h100) == 400
    bench.node.close(lease_id)
    assert bench.limit_w(bench.h100) == 650


def test_the_first_energy_of_a_node_starts_with_its_first_look() -> None:
    bench = Bench()
    bench.clock.pass_ms(100)
    bench.node.tick()
    assert {entry.start_ns for entry in bench.node.take_entries()} == {at(0)}


class Sampled:
    """A node with an H100 at whose counter a look is dear, sampled ten times a second."""

    def __init__(self, *, spares: bool = True) -> None:
        self.clock = Clock()
        self.meter = DearMeter(self.clock, "H100")
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, on_edge=lambda: None)
        self.look = self.node.sample if spares else self.node.tick
        (self.h100,) = (device.uuid for device in self.meter.devices())
        self.lease_id = self.node.open(request("a")).lease_id
        self.sample(10)  # past the edge

    def sample(self, times: int) -> int:
        """How often the counter was looked at meanwhile."""
        before = self.meter.counted[self.h100]
        for _ in range(times):
            self.clock.pass_ms(100)
            self.look()
        return self.meter.counted[self.h100] - before


class TestDearCounters:
    def test_a_board_that_does_not_answer_is_counted_and_looked_at_whole_until_it_does(self) -> None:
        node = Sampled()
        node.meter.broken = {node.h100}
        assert node.sample(3) == 2, "the first asked for power alone"
        node.meter.broken = set()
        assert node.sample(10) == 1
        (status,) = node.node.snapshot().devices
        assert (status.up, status.read_errors) == (True, 3)

    def test_while_nothing_happens_a_counter_is_looked_at_once_a_second(self) -> None:
        node = Sampled()
        assert node.sample(100) == 10

    def test_after_an_edge_a_counter_is_looked_at_every_time_until_the_edge_is_booked(self) -> None:
        node = Sampled()
        before = node.meter.counted[node.h100]
        node.node.set_phase(node.lease_id, Phase.TRAIN)
        assert node.meter.counted[node.h100] == before + 1
        assert node.sample(2) == 2
        assert node.sample(50) < 10

    def test_whoever_scrapes_is_shown_the_counter_as_it_is(self) -> None:
        node = Sampled()
        node.sample(3)
        (status,) = node.node.snapshot().devices
        assert status.energy_mj == node.meter.boards[node.h100].reading(node.h100).energy_mj

    def test_the_same_joules_are_booked_to_the_same_jobs(self) -> None:
        booked = []
        for node in (Sampled(), Sampled(spares=False)):
            node.sample(33)
            node.node.close(node.lease_id)
            node.sample(30)
            node.node.tick()
            booked.append(energy_by_job(node.node.take_entries()))
        assert booked[0] == booked[1]
        assert booked[0]["a"] > 0
