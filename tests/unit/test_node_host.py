"""A node with a host: jobs get the part of CPU and DRAM that their processor time was, and nobody gets the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.metering import START_NS, Clock, Processes, brief, energy_by_job, simulated
from workers.contract import EnergyEntry, Lease, Method, Phase, Power, Quality
from workers.errors import UnknownNameError
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.devices import HOST_EVERY_NS
from workers.telemetry.host import open_host_meters
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter

PACKAGE, DRAM = "intel-rapl:0", "intel-rapl:0:0"


class Node:
    """A node of one simulated board on a host with one counted package and its DRAM."""

    def __init__(self, folder: Path, *, only_agent: bool = True, wish: str = "auto", counted: bool = True) -> None:
        self.clock = Clock()
        self.host = FakeHost(folder / "host")
        if counted:
            self.host.zone(PACKAGE, "package-0", energy_uj=1_000_000)
            self.host.zone(DRAM, "dram")
        self.folder, self.only_agent, self.wish = folder, only_agent, wish
        self.meter = self.agent("n1")

    def agent(self, node: str) -> NodeMeter:
        """One more agent on this host."""
        host = open_host_meters(
            self.wish, node=node, powercap=self.host.powercap, proc=self.host.proc, clock_ns=self.clock
        )
        return NodeMeter(
            CompositeMeter((simulated(self.clock, "H100", processes=Processes()), *host.meters)),
            node=node,
            clock_ns=self.clock,
            usage=host.usage,
            only_agent=self.only_agent,
            unmetered=host.reasons,
        )

    def open(self, job_id: str, pid: int, *, devices: tuple[str, ...] = (), meter: NodeMeter | None = None) -> Lease:
        if not (self.host.proc / str(pid)).exists():
            self.host.start(pid)
        return (meter or self.meter).open(
            LeaseRequest(job_id=job_id, attempt=1, devices=devices, pid=pid, cpus=1.0, phase=Phase.LOAD)
        )

    def draw(self, millijoules: int, *, dram: int = 0, milliseconds: float = 1000) -> None:
        """Time passes, and the counters count."""
        self.clock.pass_ms(milliseconds)
        self.host.draw(PACKAGE, millijoules * 1000)
        self.host.draw(DRAM, dram * 1000)

    def entries(self, kind: str = "cpu", meter: NodeMeter | None = None) -> list[EnergyEntry]:
        return [entry for entry in (meter or self.meter).take_entries() if entry.kind == kind]


class TestTrouble:
    def test_a_cpu_cannot_be_leased(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        with pytest.raises(UnknownNameError, match="unknown device 'cpu-package-0@n1'"):
            node.open("a", 7, devices=("cpu-package-0@n1",))

    def test_a_cap_is_for_the_leased_gpus_alone(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.host.start(7)
        lease = node.meter.open(
            LeaseRequest(job_id="a", attempt=1, devices=("0",), pid=7, cpus=1.0, power=Power(cap_watts=300))
        )
        assert node.meter.cap_watts(lease.lease_id) == 300

    @pytest.mark.parametrize(("away_ms", "flags"), [(1500, set()), (70_000, {Quality.GAP})])
    def test_a_zone_that_vanishes_is_counted_as_down_and_its_energy_comes_back_flagged_after_a_minute(
        self, tmp_path: Path, away_ms: int, flags: set[Quality]
    ) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.vanish(PACKAGE)
        node.host.work(7, 100)
        node.draw(5_000)
        node.meter.tick()
        up = {status.device.kind: (status.up, status.read_errors) for status in node.meter.snapshot().devices}
        assert up == {"gpu": (True, 0), "cpu": (False, 1), "dram": (True, 0)}
        node.host.come_back(PACKAGE)
        node.draw(5_000, milliseconds=away_ms)
        node.meter.tick()
        (entry,) = node.entries()
        assert (entry.job_id, entry.energy_mj, entry.quality) == ("a", 10_000, {Quality.SHARED} | flags)

    def test_a_host_whose_processor_time_cannot_be_read_is_down_until_it_can(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.work(7, 30)
        stat = (node.host.proc / "stat").read_text()
        (node.host.proc / "stat").unlink()
        node.draw(4_000)
        node.meter.tick()
        up = {status.device.kind: (status.up, status.read_errors) for status in node.meter.snapshot().devices}
        assert up == {"gpu": (True, 0), "cpu": (False, 1), "dram": (False, 1)}
        assert node.entries() == []
        (node.host.proc / "stat").write_text(stat)
        node.draw(4_000, milliseconds=1500)
        node.meter.tick()
        assert energy_by_job(node.entries()) == {"a": 8_000}

    def test_a_clock_that_is_set_back_does_not_stop_the_looks(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.clock.pass_ms(-3_600_000)
        node.host.draw(PACKAGE, 7_000_000)
        node.meter.tick()
        assert energy_by_job(node.entries()) == {None: 7_000}


class TestShares:
    def test_without_a_lease_everything_is_idle(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.host.pass_ticks(busy=50, idle=50)
        node.draw(10_000, dram=2_000)
        node.meter.tick()
        taken = node.meter.take_entries()
        assert energy_by_job(entry for entry in taken if entry.kind == "cpu") == {None: 10_000}
        assert energy_by_job(entry for entry in taken if entry.kind == "dram") == {None: 2_000}
        assert {entry.share for entry in taken} == {1.0}
        assert {entry.quality for entry in taken} == {frozenset()}

    def test_a_job_has_the_part_its_processor_time_was_of_the_busy_time(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.open("b", 8)
        node.host.work(7, 60)
        node.host.work(8, 20)
        node.host.pass_ticks(busy=20, idle=300)
        node.draw(10_000, dram=1_001)
        node.meter.tick()
        taken = node.meter.take_entries()
        cpu = [entry for entry in taken if entry.kind == "cpu"]
        assert [(e.job_id, e.energy_mj, e.share) for e in cpu] == [
            (None, 2_000, 0.2),
            ("a", 6_000, 0.6),
            ("b", 2_000, 0.2),
        ]
        assert {entry.quality for entry in cpu} == {frozenset({Quality.SHARED})}
        assert {entry.method for entry in cpu} == {Method.COUNTER}
        assert energy_by_job(entry for entry in taken if entry.kind == "dram") == {"a": 601, "b": 200, None: 200}

    def test_a_job_that_only_waits_has_nothing_of_an_idle_host(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.pass_ticks(busy=0, idle=400)
        node.draw(10_000)
        node.meter.tick()
        assert energy_by_job(node.entries()) == {None: 10_000}

    def test_a_job_that_waits_while_others_work_has_an_entry_of_nothing(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.pass_ticks(busy=400, idle=0)
        node.draw(10_000)
        node.meter.tick()
        assert energy_by_job(node.entries()) == {"a": 0, None: 10_000}

    def test_a_job_alone_on_the_host_has_all_of_it_and_is_still_flagged_shared(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.work(7, 10)
        node.draw(10_000)
        node.meter.tick()
        (entry,) = node.entries()
        assert (entry.job_id, entry.energy_mj, entry.share, entry.quality) == ("a", 10_000, 1.0, {Quality.SHARED})

    def test_phases_are_split_by_what_was_used_and_drawn_in_each(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        lease = node.open("a", 7)
        node.host.work(7, 10)
        node.host.pass_ticks(busy=10, idle=0)
        node.draw(1_000, milliseconds=300)
        node.meter.set_phase(lease.lease_id, Phase.TRAIN)
        node.host.work(7, 30)
        node.host.pass_ticks(busy=10, idle=0)
        node.draw(8_000, milliseconds=700)
        node.meter.close(lease.lease_id)
        assert [(e.phase, e.energy_mj, e.share) for e in node.entries() if e.job_id == "a"] == [
            (Phase.LOAD, 500, 0.5),
            (Phase.TRAIN, 6_000, 0.75),
        ]

    def test_an_edge_between_two_refreshes_of_the_counter_is_split_by_time(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.clock.pass_ms(400)
        lease = node.open("a", 7)
        node.host.work(7, 10)
        node.clock.pass_ms(400)
        node.meter.close(lease.lease_id)
        node.draw(1_000, milliseconds=200)
        node.meter.tick()
        assert brief(node.entries()) == [(0, 400, 400, None), (400, 800, 400, "a"), (800, 1000, 200, None)]

    def test_a_job_without_gpus_has_its_part_too(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        lease = node.open("a", 7, devices=())
        node.host.work(7, 10)
        node.draw(3_000)
        node.meter.close(lease.lease_id)
        # The DRAM's counter stands still, as some do for ever: it is not waited for.
        node.draw(1, milliseconds=20)
        node.meter.tick()
        assert node.meter.is_settled(lease.lease_id)
        assert node.meter.lease_energy_mj(lease.lease_id) == 3_000

    def test_a_modelled_cpu_is_shared_alike_and_says_modelled(self, tmp_path: Path) -> None:
        node = Node(tmp_path, wish="modelled", counted=False)
        node.open("a", 7)
        node.clock.pass_ms(1000)
        node.host.work(7, 300)
        node.host.pass_ticks(busy=100, idle=0)
        node.meter.tick()
        a, idle = sorted(node.entries(), key=lambda entry: -entry.energy_mj)
        assert (a.job_id, a.energy_mj, a.method) == ("a", 168_750, Method.MODELLED)
        assert (idle.job_id, idle.energy_mj) == (None, 56_250)


class TestPace:
    def test_between_edges_the_host_is_looked_at_once_a_second(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.clock.pass_ms(HOST_EVERY_NS / 1e6 - 1)
        node.host.draw(PACKAGE, 1_000_000)
        node.meter.tick()
        assert node.entries() == []
        node.clock.pass_ms(1)
        node.meter.tick()
        assert brief(node.entries()) == [(0, 1000, 1_000, None)]

    def test_after_a_lease_the_next_tick_looks_at_once(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        lease = node.open("a", 7, devices=("0",))
        node.host.work(7, 1)
        node.draw(500, dram=5, milliseconds=300)
        node.meter.close(lease.lease_id)
        assert not node.meter.is_settled(lease.lease_id)
        node.draw(1, dram=1, milliseconds=100)
        node.meter.tick()
        assert node.meter.is_settled(lease.lease_id)

    def test_a_node_that_shuts_down_books_what_it_drew_to_the_end(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        node.open("a", 7)
        node.host.work(7, 1)
        node.draw(500, milliseconds=300)
        node.meter.shutdown()
        assert energy_by_job(node.entries()) == {"a": 500}


class TestSeveralAgents:
    def test_only_the_hosts_only_agent_tells_of_what_no_job_used(self, tmp_path: Path) -> None:
        node = Node(tmp_path, only_agent=False)
        node.open("a", 7, devices=("0",))
        node.host.work(7, 60)
        node.host.pass_ticks(busy=40, idle=0)
        node.draw(10_000, dram=100)
        node.meter.tick()
        taken = node.meter.take_entries()
        assert [(e.kind, e.job_id, e.energy_mj) for e in taken if e.kind != "gpu"] == [
            ("cpu", "a", 6_000),
            ("dram", "a", 60),
        ]

    def test_what_idle_gpus_draw_is_told_by_every_agent(self, tmp_path: Path) -> None:
        node = Node(tmp_path, only_agent=False)
        node.draw(10_000)
        node.meter.tick()
        assert [(e.kind, e.job_id) for e in node.meter.take_entries()] == [("gpu", None)]

    def test_only_the_hosts_only_agent_exports_its_counters(self, tmp_path: Path) -> None:
        alone, one_of_many = Node(tmp_path / "1"), Node(tmp_path / "2", only_agent=False)
        shown = [
            {status.device.kind: (status.up, status.energy_mj) for status in node.meter.snapshot().devices}
            for node in (alone, one_of_many)
        ]
        assert shown[0] == {"gpu": (True, 0), "cpu": (True, 1_000), "dram": (True, 0)}
        assert shown[1] == {"gpu": (True, 0), "cpu": (True, None), "dram": (True, None)}

    def test_two_agents_of_one_host_book_no_joule_twice(self, tmp_path: Path) -> None:
        node = Node(tmp_path, only_agent=False)
        second = node.agent("n2")
        node.open("a", 7)
        node.open("b", 8, meter=second)
        for _ in range(5):
            node.host.work(7, 50)
            node.host.work(8, 30)
            node.host.pass_ticks(busy=20, idle=100)
            node.draw(10_000)
            node.meter.tick()
            second.tick()
        booked = [*node.entries(), *node.entries(meter=second)]
        assert energy_by_job(booked) == {"a": 25_000, "b": 15_000}
        assert {entry.device for entry in booked} == {"cpu-package-0@n1", "cpu-package-0@n2"}


class TestUnmetered:
    def test_a_node_knows_why_a_kind_is_missing(self, tmp_path: Path) -> None:
        node = Node(tmp_path, counted=False)
        assert node.meter.unmetered == {"dram": "DRAM is not modelled: a constant per GB would be no measurement"}

    def test_a_host_without_usage_is_nobodys(self, tmp_path: Path) -> None:
        node = Node(tmp_path)
        host = open_host_meters("auto", node="n1", powercap=node.host.powercap, proc=node.host.proc)
        bare = NodeMeter(CompositeMeter(host.meters), node="n1", clock_ns=node.clock, only_agent=True)
        node.open("a", 7, meter=bare)
        node.host.work(7, 60)
        node.draw(1_000)
        bare.tick()
        assert energy_by_job(entry for entry in bare.take_entries() if entry.kind == "cpu") == {None: 1_000}

    def test_the_first_look_is_where_the_books_begin(self, tmp_path: Path) -> None:
        assert Node(tmp_path).meter.take_entries() == []
        assert START_NS > 0
