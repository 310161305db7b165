"""Every meter keeps the contract of ``PowerMeter``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver.driver import Driver, nvml_library
from tests.driver.probe import Probe
from tests.driver.remote import RemoteMeter
from tests.fake_host import FakeHost
from tests.meter_contract import MeterContract, Metered
from tests.metering import MS, START_NS, Clock, simulated
from workers.contract import EnergyEntry, Method
from workers.home import Home
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.modelled import ModelledCpuMeter
from workers.telemetry.rapl import RaplMeter
from workers.telemetry.replay import ReplayMeter
from workers.units import NS_PER_S

__all__ = ["nvml_library"]


class Life:
    """A clock, a host, and both going on together."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.host = FakeHost(folder / "host", packages=2)
        for number in range(2):
            self.host.zone(f"intel-rapl:{number}", f"package-{number}", energy_uj=123_456)
            self.host.zone(f"intel-rapl:{number}:0", "dram")

    def __call__(self) -> None:
        self.clock.pass_ms(250)
        self.host.pass_ticks(busy=40, idle=60)
        for number in range(2):
            self.host.draw(f"intel-rapl:{number}", 20_000_700)
            self.host.draw(f"intel-rapl:{number}:0", 1_000_300)

    def rapl(self) -> RaplMeter:
        return RaplMeter(
            node="n1",
            root=self.host.powercap,
            proc=self.host.proc,
            clock_ns=self.clock,
            monotonic_ns=self.clock,
        )

    def modelled(self) -> ModelledCpuMeter:
        return ModelledCpuMeter(node="n1", proc=self.host.proc, clock_ns=self.clock)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


class TestSimulatedMeter(MeterContract):
    @pytest.fixture
    def metered(self, life: Life) -> Metered:
        return Metered(meter=simulated(life.clock, "H100", "T4"), live=life)


class TestNvmlMeter(MeterContract):
    """On the real library of the simulated driver: a board with a counter, one older than counters, one in slices."""

    @pytest.fixture
    def metered(self, nvml_library: Path) -> Iterator[Metered]:
        boards = [{}, {"model": "P100"}, {"model": "A100-80GB", "slices": ["MIG-a", "MIG-b"]}]
        with Driver(nvml_library, boards, clock="manual") as driver, Probe(driver) as probe:
            driver.order("advance", ns=START_NS - driver.order("now"))
            for board in range(len(boards)):
                driver.order("load", board=board, processes={"7": 0.5})
            yield Metered(meter=RemoteMeter(probe), live=lambda: driver.order("advance", ns=250 * MS))


class TestReplayOfAnSmiLog(MeterContract):
    @pytest.fixture
    def metered(self, life: Life, tmp_path: Path) -> Metered:
        rows = [
            f"2023/03/08 14:30:{second:02d}.000, GPU-{board}, NVIDIA H100, {100 + second} W, 40 %, 700.00 W"
            for second in range(60)
            for board in "ab"
        ]
        head = "timestamp, uuid, name, power.draw [W], utilization.gpu [%], power.limit [W]"
        (tmp_path / "smi.csv").write_text("\n".join([head, *rows, ""]))
        return Metered(meter=ReplayMeter.open([tmp_path / "smi.csv"], clock_ns=life.clock), live=life)


class TestReplayOfAnEnergyLog(MeterContract):
    @pytest.fixture
    def metered(self, life: Life, tmp_path: Path) -> Metered:
        entries = [
            EnergyEntry(
                start_ns=START_NS + second * NS_PER_S,
                end_ns=START_NS + (second + 1) * NS_PER_S,
                device=f"{kind}-1",
                model="H100",
                kind=kind,
                energy_mj=100_003 + second,
                job_id=None,
                attempt=None,
                phase=None,
                share=1.0,
                method=method,
            )
            for kind, method in (("gpu", Method.COUNTER), ("cpu", Method.MODELLED), ("dram", Method.SIMULATED))
            for second in range(60)
        ]
        EnergyLog(Home(tmp_path / "home").energy("node-1"), boot="boot").write(entries)
        return Metered(meter=ReplayMeter.open([tmp_path / "home"], clock_ns=life.clock), live=life)


class TestRaplMeter(MeterContract):
    @pytest.fixture
    def metered(self, life: Life) -> Metered:
        return Metered(meter=life.rapl(), live=life)


class TestModelledCpuMeter(MeterContract):
    @pytest.fixture
    def metered(self, life: Life) -> Metered:
        return Metered(meter=life.modelled(), live=life)


class TestGpusWithCountedCpu(MeterContract):
    @pytest.fixture
    def metered(self, life: Life) -> Metered:
        return Metered(meter=CompositeMeter((simulated(life.clock, "H100", "T4"), life.rapl())), live=life)


class TestGpusWithModelledCpu(MeterContract):
    @pytest.fixture
    def metered(self, life: Life) -> Metered:
        return Metered(meter=CompositeMeter((simulated(life.clock, "H100"), life.modelled())), live=life)
