"""Several meters behind one port: nothing is counted twice, and no job is handed a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.metering import Clock, MoodyMeter, Processes, lease, simulated
from workers.errors import MeterError, UnknownNameError
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.meter import find_device
from workers.telemetry.modelled import ModelledCpuMeter
from workers.telemetry.simulated import SimulatedMeter


def test_a_device_offered_twice_is_refused() -> None:
    clock = Clock()
    meter = simulated(clock, "H100")
    with pytest.raises(MeterError, match=r"two meters of this node offer the same device\..*GPU-sim-"):
        CompositeMeter((meter, meter))


def test_a_node_with_a_cpu_alone_has_no_device_for_a_job(tmp_path: Path) -> None:
    meter = CompositeMeter((ModelledCpuMeter(node="n1", proc=FakeHost(tmp_path / "host").proc),))
    for token in ("0", "cpu-package-0@n1"):
        with pytest.raises(UnknownNameError, match=rf"unknown device '{token}'\. Known: no GPU at all\."):
            find_device(meter.devices(), token)


def test_device_0_is_the_first_gpu_wherever_the_cpu_stands(tmp_path: Path) -> None:
    clock = Clock()
    gpus = simulated(clock, "H100", "T4")
    meter = CompositeMeter((ModelledCpuMeter(node="n1", proc=FakeHost(tmp_path / "host").proc), gpus))
    assert [device.index for device in meter.devices()] == [0, 0, 1]
    assert find_device(meter.devices(), "0") is gpus.devices()[0]
    assert find_device(meter.devices(), "1") is gpus.devices()[1]


def test_one_meters_broken_device_leaves_the_others_readable(tmp_path: Path) -> None:
    clock = Clock()
    moody = MoodyMeter(clock, "H100")
    (board,) = moody.devices()
    meter = CompositeMeter((moody, ModelledCpuMeter(node="n1", proc=FakeHost(tmp_path / "host").proc, clock_ns=clock)))
    moody.broken.add(board.uuid)
    with pytest.raises(MeterError, match="fallen off the bus"):
        meter.read(board.uuid)
    assert meter.read("cpu-package-0@n1").energy_mj == 0


def test_each_meter_is_told_of_its_own_part_of_a_lease(tmp_path: Path) -> None:
    clock, processes = Clock(), Processes()
    first = simulated(clock, "H100", processes=processes)
    second = SimulatedMeter(("T4", "T4"), node="n2", clock_ns=clock, cpu_seconds=processes)
    meter = CompositeMeter((first, ModelledCpuMeter(node="n1", proc=FakeHost(tmp_path / "host").proc), second))
    held = lease("a", [first.devices()[0].uuid], pid=7)
    processes.work(7, 0.0)
    meter.attach(held)
    clock.pass_ms(1000)
    processes.work(7, 1.0)
    assert meter.read(first.devices()[0].uuid).utilization == 1.0
    meter.detach(held)
    clock.pass_ms(1000)
    processes.work(7, 1.0)
    assert meter.read(first.devices()[0].uuid).utilization == 0.0


def test_closing_closes_every_meter() -> None:
    clock = Clock()
    moody = MoodyMeter(clock, "H100")
    CompositeMeter((moody,)).close()
    assert moody.closed
