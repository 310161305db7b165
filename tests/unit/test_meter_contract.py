"""Every meter keeps the contract of ``PowerMeter``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.meter_contract import MeterContract, Metered
from tests.metering import Clock, simulated
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.modelled import ModelledCpuMeter
from workers.telemetry.rapl import RaplMeter


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
