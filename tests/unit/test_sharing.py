"""Leases that share a board: each has what its processes used of it, and what nobody can tell is split equally."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.metering import Clock, MoodyMeter, Processes, energy_by_job, lease
from workers.contract import EnergyEntry, Quality
from workers.errors import MeterError
from workers.telemetry import procfs
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.sharing import use_by_lease

A, B = lease("a", ["0"], pid=10), lease("b", ["0"], pid=20)


def alone(pid: int) -> tuple[int, ...]:
    """A process without parents."""
    return (pid,)


class TestUseByLease:
    def test_processes_of_no_lease_tell_nothing_of_those_there_are(self) -> None:
        assert use_by_lease({99: 500}, [A, B], alone) == {}
        assert use_by_lease({}, [A, B], alone) == {}

    def test_a_stranger_beside_a_leases_process_is_nobodys(self) -> None:
        assert use_by_lease({10: 300, 98: 100, 99: 50}, [A, B], alone) == {"lease-a": 300, None: 150}

    def test_a_lease_has_what_its_descendants_used(self, tmp_path: Path) -> None:
        host = FakeHost(tmp_path / "host")
        for pid, parent in ((10, None), (11, 10), (12, 11), (20, None)):
            host.start(pid, parent=parent)
        used = use_by_lease({12: 70, 11: 5, 20: 25}, [A, B], lambda pid: procfs.lineage(pid, host.proc))
        assert used == {"lease-a": 75, "lease-b": 25}

    def test_of_two_leases_up_its_line_a_process_is_the_nearest_ones(self) -> None:
        assert use_by_lease({12: 70}, [A, B], lambda pid: (pid, 20, 10)) == {"lease-b": 70}

    def test_leases_of_one_process_have_equal_parts_of_what_it_used(self) -> None:
        again = replace(lease("c", ["0"], pid=10), attempt=2)
        assert use_by_lease({10: 7, 20: 4}, [A, again, B], alone) == {"lease-a": 7, "lease-c": 7, "lease-b": 8}

    def test_a_line_ends_where_a_process_is_gone(self, tmp_path: Path) -> None:
        host = FakeHost(tmp_path / "host")
        host.start(11, parent=10)
        assert list(procfs.lineage(11, host.proc)) == [11, 10]
        assert list(procfs.lineage(77, host.proc)) == [77]


class Bench:
    """An H100 whose holders' processes work as told, looked at every 100 ms."""

    def __init__(self) -> None:
        self.clock, self.processes = Clock(), Processes()
        self.meter = CountingMeter(self.clock, "H100", processes=self.processes)
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, lineage=alone)

    def open(self, job_id: str, pid: int) -> str:
        self.processes.used_s.setdefault(pid, 0.0)
        request = LeaseRequest(job_id=job_id, attempt=1, devices=("0",), pid=pid, cpus=1.0)
        return self.node.open(request).lease_id

    def work(self, seconds: int, **used: float) -> None:
        """Each process ``p10=0.3`` is busy for that share of the time."""
        for _ in range(10 * seconds):
            self.clock.pass_ms(100)
            for pid, share in used.items():
                self.processes.work(int(pid[1:]), share / 10)
            self.node.tick()

    def entries(self) -> list[EnergyEntry]:
        return self.node.take_entries()


class CountingMeter(MoodyMeter):
    """Counts how often it is asked for use, and may fail to tell it."""

    asked = 0
    fails = False

    def process_use(self, device: str) -> dict[int, int]:
        self.asked += 1
        if self.fails:
            raise MeterError("no samples")
        return dict(super().process_use(device))


class TestOneBoard:
    def test_one_lease_alone_costs_no_question(self) -> None:
        bench = Bench()
        bench.open("a", 10)
        bench.work(1, p10=0.5)
        assert bench.meter.asked == 0

    def test_each_of_two_has_the_part_it_used_and_the_parts_are_all(self) -> None:
        bench = Bench()
        first, second = bench.open("a", 10), bench.open("b", 20)
        bench.work(10, p10=0.6, p20=0.2)
        entries = bench.entries()
        mine = energy_by_job(entries)
        total_mj = sum(mine.values())
        assert total_mj == bench.node.snapshot().devices[0].energy_mj
        assert abs(4 * mine["a"] - 3 * total_mj) <= 4 * len(entries)
        assert mine["a"] == bench.node.lease_energy_mj(first)
        assert mine["b"] == bench.node.lease_energy_mj(second)
        assert {entry.quality for entry in entries if entry.job_id} == {frozenset({Quality.SHARED})}

    def test_where_use_cannot_be_told_parts_are_equal_and_no_reading_is_lost(self) -> None:
        bench = Bench()
        bench.meter.fails = True
        bench.open("a", 10)
        bench.open("b", 20)
        bench.work(1, p10=0.9)
        mine = energy_by_job(bench.entries())
        assert abs(mine["a"] - mine["b"]) <= 10
        assert bench.node.snapshot().devices[0].read_errors == 0

    def test_what_was_used_before_a_second_lease_came_is_the_firsts(self) -> None:
        bench = Bench()
        bench.open("a", 10)
        bench.work(1, p10=1.0)
        bench.entries()
        bench.open("b", 20)
        bench.work(1, p20=1.0)
        mine = energy_by_job(bench.entries())
        # All of it but what spans the edge, which came 50 ms before the middle between two refreshes.
        assert mine.get("a", 0) <= 35_000
        assert mine["b"] > 600_000

    def test_the_last_lease_alone_is_not_asked_for_again_and_has_all(self) -> None:
        bench = Bench()
        first = bench.open("a", 10)
        bench.open("b", 20)
        bench.work(1, p10=0.5)
        bench.node.close(first)
        asked = bench.meter.asked
        bench.entries()
        bench.work(2, p20=0.1)
        entries = bench.entries()
        assert bench.meter.asked == asked
        assert {entry.job_id for entry in entries if entry.share == 1.0} == {"b"}

    @pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 0.0)])
    def test_who_did_nothing_has_nothing_unless_nobody_did_anything(self, shares: tuple[float, float]) -> None:
        bench = Bench()
        bench.open("a", 10)
        bench.open("b", 20)
        bench.work(1)
        bench.entries()
        bench.work(1, p10=shares[0], p20=shares[1])
        mine = energy_by_job(bench.entries())
        assert (mine["b"] > 0) == (shares == (0.0, 0.0))
