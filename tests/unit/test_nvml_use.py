"""Who kept an NVIDIA board busy: samples that are new, possible and recent count, and nothing else is made of them."""

from __future__ import annotations

import pynvml
import pytest

from tests.fake_nvml import Board, FakeNvml
from tests.metering import START_NS, Clock
from workers.errors import MeterError
from workers.telemetry.nvml import NvmlMeter

UUID = Board().uuid
MS, S = 1_000_000, 1_000_000_000


class Bench:
    """One board whose use has been asked for, so that it is told from now on."""

    def __init__(self) -> None:
        self.clock, self.board = Clock(), Board()
        self.meter = NvmlMeter(clock_ns=self.clock, nvml=FakeNvml(self.board), environ={})
        self.use()

    def use(self) -> dict[int, int] | None:
        used = self.meter.process_use(UUID)
        return None if used is None else dict(used)

    def sample(self, *shares: tuple[int, int], at_ms: float = 0, after_ms: int = 0) -> None:
        """Samples ``(pid, %)`` of ``at_ms`` from now, after ``after_ms``."""
        self.clock.pass_ms(after_ms)
        assert self.board.processes is not None
        at_us = self.clock.now_ns // 1000 + round(1000 * at_ms)
        self.board.processes += [(pid, at_us, percent) for pid, percent in shares]


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND]
)
def test_a_board_or_a_driver_that_takes_no_samples_knows_nothing(code: int) -> None:
    bench = Bench()
    bench.board.errors["nvmlDeviceGetProcessUtilization"] = code
    bench.clock.pass_ms(100)
    assert bench.use() is None
    bench.clock.pass_ms(1)
    assert bench.use() is None


def test_a_lost_board_is_an_error() -> None:
    bench = Bench()
    bench.board.lost = True
    bench.clock.pass_ms(100)
    with pytest.raises(MeterError, match="GPU is lost"):
        bench.use()


@pytest.mark.parametrize(
    "code", [pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INSUFFICIENT_SIZE]
)
def test_no_sample_is_no_use(code: int) -> None:
    bench = Bench()
    bench.board.errors["nvmlDeviceGetProcessUtilization"] = code
    bench.clock.pass_ms(1000)
    assert bench.use() == {}


def test_what_was_sampled_before_the_first_call_is_not_told() -> None:
    clock = Clock()
    board = Board(processes=[(7, START_NS // 1000 - 500_000, 80)])
    meter = NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={})
    assert meter.process_use(UUID) == {}
    clock.pass_ms(500)
    assert meter.process_use(UUID) == {}


def test_use_is_the_sampled_share_of_the_time_since_the_last_call() -> None:
    bench = Bench()
    bench.sample((7, 75), (8, 25), after_ms=200)
    assert bench.use() == {7: 150 * MS, 8: 50 * MS}


def test_between_samples_the_latest_go_on_for_two_seconds() -> None:
    bench = Bench()
    bench.sample((7, 50), after_ms=100)
    bench.use()
    for _ in range(4):
        bench.clock.pass_ms(500)
        assert bench.use() == {7: 250 * MS}
    bench.clock.pass_ms(1)
    assert bench.use() == {}


def test_a_process_is_in_those_periods_alone_in_which_it_was_busy() -> None:
    bench = Bench()
    for percents in ([(7, 80), (8, 40)], [(7, 80)], [(7, 40)], [(7, 40)]):
        bench.sample(*percents, after_ms=250)
    assert bench.use() == {7: 600 * MS, 8: 100 * MS}


def test_a_sample_counts_once() -> None:
    bench = Bench()
    bench.sample((7, 100), after_ms=100)
    bench.use()
    bench.sample((8, 100), after_ms=100)
    assert bench.use() == {8: 100 * MS}


def test_entries_that_the_driver_never_filled_in_are_no_samples() -> None:
    bench = Bench()
    bench.sample((7, 30), (4_000_000_000, 3_435_973_836), after_ms=1000)
    assert bench.use() == {7: 300 * MS}


def test_a_sample_from_the_future_hides_none_of_the_later_ones() -> None:
    bench = Bench()
    bench.sample((7, 10), at_ms=10**9, after_ms=1000)
    bench.use()
    bench.board.processes = []
    bench.sample((8, 60), after_ms=1000)
    assert bench.use() == {8: 600 * MS}


def test_a_clock_that_is_set_back_takes_no_time_away_and_the_next_samples_count() -> None:
    bench = Bench()
    bench.sample((7, 100), after_ms=1000)
    bench.use()
    bench.sample((7, 100), after_ms=-3_600_000)
    assert bench.use() == {7: 0}
    bench.board.processes = []
    bench.sample((7, 50), after_ms=1000)
    assert bench.use() == {7: 500 * MS}


def test_looks_that_are_close_together_do_not_ask_each_time_and_miss_nothing() -> None:
    bench = Bench()
    bench.sample((7, 40), after_ms=100)
    used = [bench.use()]
    bench.board.errors["nvmlDeviceGetProcessUtilization"] = pynvml.NVML_ERROR_UNKNOWN
    for _ in range(10):
        bench.clock.pass_ms(3)
        used.append(bench.use())
    assert used == [{7: 40 * MS}] + [{7: 3 * MS * 40 // 100}] * 10


def test_the_same_samples_give_exactly_the_same_shares_whatever_the_time_between() -> None:
    bench = Bench()
    bench.sample((7, 61), (8, 22), after_ms=100)
    for milliseconds in (0, 33.333333, 0.000777, 100.000001):
        bench.clock.pass_ms(milliseconds)
        used = bench.use()
        assert used is not None
        assert used[7] * 22 == used[8] * 61
