"""The meter's contract on the real boards of this machine. Not collected: name it where there is an NVIDIA GPU.

    python -m pytest tests/driver/real_board.py -p no:benchmark

Nothing of a board is changed: its limits can be read here, and not set.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import pytest

from orchestrator.doctor.refresh import measure_refresh
from tests.meter_contract import MeterContract, Metered
from workers.contract import Method
from workers.errors import CapError
from workers.telemetry.meter import LimitRange
from workers.telemetry.nvml import NvmlMeter
from workers.units import NS_PER_S

LIVE_S = 0.25
"""Longer than any board's counter takes to refresh."""


class Untouched(NvmlMeter):
    """The meter, whose boards keep their limits: to whoever would set one they have none."""

    def limit_range(self, device: str) -> LimitRange:
        super().limit_range(device)
        raise CapError(f"the limit of {device} is left alone here.")

    def set_limit(self, device: str, limit_mw: int) -> None:
        self.limit_range(device)


@pytest.fixture
def meter() -> Iterator[NvmlMeter]:
    meter = Untouched()
    yield meter
    meter.close()


class TestRealBoards(MeterContract):
    @pytest.fixture
    def metered(self, meter: NvmlMeter) -> Metered:
        return Metered(meter=meter, live=lambda: time.sleep(LIVE_S))


def test_every_figure_that_a_board_of_today_offers_is_told(meter: NvmlMeter) -> None:
    for device in meter.devices():
        reading, condition, limits = meter.read(device.uuid), meter.condition(device.uuid), limits_of(device.uuid)
        print(device, reading, condition, limits, sep="\n")
        assert device.method is Method.COUNTER
        assert None not in (reading.power_mw, reading.limit_mw, reading.utilization)
        assert None not in (condition.memory_used_bytes, condition.sm_clock_mhz, condition.throttle)
        assert limits.min_mw <= limits.set_mw <= limits.max_mw
        assert limits.min_mw <= limits.default_mw <= limits.max_mw


def test_a_counter_refreshes_within_the_time_that_an_edge_is_looked_at_closely(meter: NvmlMeter) -> None:
    for device in meter.devices():
        refresh = measure_refresh(meter, device.uuid)
        print(refresh)
        assert refresh is not None
        assert refresh.interval_ms <= 110


def test_counter_and_power_readings_of_an_idle_board_agree(meter: NvmlMeter) -> None:
    for device in meter.devices():
        readings = []
        for _ in range(40):
            readings.append(meter.read(device.uuid))
            time.sleep(0.05)
        first, last = readings[0], readings[-1]
        assert first.energy_mj is not None
        assert last.energy_mj is not None
        counted_w = (last.energy_mj - first.energy_mj) * NS_PER_S / (last.time_ns - first.time_ns) / 1000
        powers = [reading.power_mw for reading in readings if reading.power_mw is not None]
        steps = [b.energy_mj - a.energy_mj for a, b in itertools.pairwise(readings) if a.energy_mj and b.energy_mj]
        print(f"{counted_w:.1f} W by the counter, {statistics.mean(powers) / 1000:.1f} W by readings; steps {steps}")
        assert counted_w == pytest.approx(statistics.mean(powers) / 1000, rel=0.2)


def limits_of(uuid: str) -> LimitRange:
    """As the meter tells them, without ``Untouched``."""
    meter = NvmlMeter()
    try:
        return meter.limit_range(uuid)
    finally:
        meter.close()
