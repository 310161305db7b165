"""What a scrape shows of a node whose meter fails: nothing stale, and each failure counted."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from tests.prometheus_server import read_url
from tests.unit.test_exporter import FIGURES, samples
from workers.contract import Phase, Reading
from workers.errors import MeterError
from workers.telemetry import catalogue
from workers.telemetry.exporter import AgentCollector, render, serve
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.simulated import SimulatedMeter
from workers.units import NS_PER_S


class FailingMeter(SimulatedMeter):
    """Two simulated boards on a clock that moves a second per look; those in ``lost`` cannot be read."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000 * NS_PER_S
        self.lost: set[str] = set()
        super().__init__(("H100", "T4"), node="n", clock_ns=self.clock, cpu_seconds=lambda _: 0.0)

    def clock(self) -> int:
        self.now_ns += NS_PER_S
        return self.now_ns

    def read(self, device: str) -> Reading:
        if device in self.lost:
            raise MeterError(f"{device} has fallen off the bus. Reboot the node.")
        return super().read(device)


@pytest.fixture
def meter() -> FailingMeter:
    return FailingMeter()


@pytest.fixture
def node(meter: FailingMeter) -> NodeMeter:
    """A node whose first board is held by a job."""
    node = NodeMeter(meter, node="n", clock_ns=meter.clock)
    node.open(LeaseRequest(job_id="job-1", attempt=1, devices=("0",), pid=1, cpus=1.0, phase=Phase.TRAIN))
    return node


def shown(text: str) -> dict[str, dict[str, float]]:
    """Device to its figures by metric name; series without a device are left out."""
    found: dict[str, dict[str, float]] = {}
    for name, series in samples(text).items():
        for labels, value in series:
            if "device" in labels:
                found.setdefault(labels["device"], {})[name] = value
    return found


def test_a_lost_device_disappears_from_the_next_scrape_and_each_failed_read_is_counted(
    meter: FailingMeter, node: NodeMeter
) -> None:
    lost, healthy = (device.uuid for device in meter.devices())
    with serve(AgentCollector(node.snapshot)) as exporter:
        before = shown(read_url(exporter.url))
        assert set(FIGURES) <= before[lost].keys()
        assert before[lost][catalogue.READ_ERRORS.name] == 0
        meter.lost.add(lost)
        first, second = shown(read_url(exporter.url)), shown(read_url(exporter.url))
    gone = {catalogue.DEVICE_UP.name: 0.0, catalogue.LEASE_INFO.name: 1.0}
    assert first[lost] == {**gone, catalogue.READ_ERRORS.name: 1}
    assert second[lost] == {**gone, catalogue.READ_ERRORS.name: 2}
    assert set(FIGURES) <= second[healthy].keys()
    assert second[healthy][catalogue.READ_ERRORS.name] == 0


def test_a_device_that_comes_back_is_shown_again_and_its_errors_stay_counted(
    meter: FailingMeter, node: NodeMeter
) -> None:
    lost = meter.devices()[0].uuid
    with serve(AgentCollector(node.snapshot)) as exporter:
        energy_before = shown(read_url(exporter.url))[lost][catalogue.DEVICE_ENERGY.name]
        meter.lost.add(lost)
        read_url(exporter.url)
        meter.lost.clear()
        back = shown(read_url(exporter.url))[lost]
    assert back[catalogue.DEVICE_UP.name] == 1.0
    assert back[catalogue.READ_ERRORS.name] == 1
    assert back[catalogue.DEVICE_ENERGY.name] > energy_before


def test_the_energy_of_a_job_does_not_fall_while_its_device_is_lost(meter: FailingMeter, node: NodeMeter) -> None:
    energies = []
    for lost in (set(), {meter.devices()[0].uuid}, {meter.devices()[0].uuid}, set()):
        meter.lost = lost
        ((_, joules),) = samples(render(node.snapshot()))[catalogue.JOB_ENERGY.name]
        energies.append(joules)
    assert energies == sorted(energies)
    assert energies[1] == energies[2] < energies[3]


def test_a_board_that_did_not_answer_at_the_start_is_an_error_and_nothing_else(node: NodeMeter) -> None:
    found = shown(render(replace(node.snapshot(), silent=("GPU 3",))))
    assert found["GPU 3"] == {catalogue.READ_ERRORS.name: 1.0}


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say_about_a_node_that_fails(meter: FailingMeter, node: NodeMeter) -> None:
    meter.lost.add(meter.devices()[0].uuid)
    text = render(node.snapshot())
    command = ["promtool", "check", "metrics"]
    said = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
