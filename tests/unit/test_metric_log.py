"""The metric log: closed small and often, read back in order, torn files told apart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from workers.contract import Phase
from workers.home import Home
from workers.metric_log import (
    LOSS,
    PHASE_END,
    PHASE_START,
    MetricLog,
    MetricSample,
    read_metric_log,
    read_metrics,
)
from workers.units import NS_PER_S

START_NS = 1_700_000_000 * NS_PER_S


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * NS_PER_S)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def files(home: Home) -> list[str]:
    return sorted(path.name for path in home.metrics("j", 1).glob("*"))


def test_a_closed_log_takes_no_more(home: Home, clock: Clock) -> None:
    log = MetricLog(home.metrics("j", 1), clock_ns=clock)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="loss came too late"):
        log.log(LOSS, 1.0, phase=Phase.TRAIN)
    assert not home.metrics("j", 1).exists()


def test_a_torn_file_is_listed_and_the_rest_is_read(home: Home, clock: Clock) -> None:
    with MetricLog(home.metrics("j", 1), clock_ns=clock) as log:
        log.log(LOSS, 1.0, phase=Phase.TRAIN)
    torn = home.metrics("j", 1) / "part-1-000000.parquet"
    torn.write_bytes(b"PAR1 and then the power went")
    read = read_metric_log(home, "j", 1)
    assert [sample.value for sample in read.samples] == [1.0]
    assert read.unreadable == (torn,)


def test_an_attempt_that_logged_nothing_reads_as_empty(home: Home) -> None:
    assert read_metrics(home, "never", 3) == ()


def test_a_write_that_fails_keeps_its_rows_for_the_next(home: Home, clock: Clock) -> None:
    folder = home.metrics("j", 1)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    log = MetricLog(folder, clock_ns=clock)
    log.log(LOSS, 1.0, phase=Phase.TRAIN)
    with pytest.raises(FileExistsError):
        log.flush()
    folder.unlink()
    log.close()
    assert [sample.value for sample in read_metrics(home, "j", 1)] == [1.0]


def test_rows_wait_until_the_oldest_is_a_second_old(home: Home, clock: Clock) -> None:
    log = MetricLog(home.metrics("j", 1), clock_ns=clock)
    log.log(LOSS, 3.0, phase=Phase.TRAIN, step=1)
    clock.advance(0.999)
    log.log(LOSS, 2.0, phase=Phase.TRAIN, step=2)
    assert read_metrics(home, "j", 1) == ()
    clock.advance(0.001)
    log.log(LOSS, 1.0, phase=Phase.TRAIN, step=3)
    assert [sample.step for sample in read_metrics(home, "j", 1)] == [1, 2, 3]


def test_the_edge_of_a_phase_is_on_disk_at_once(home: Home, clock: Clock) -> None:
    log = MetricLog(home.metrics("j", 1), clock_ns=clock)
    log.log(PHASE_START, 1.0, phase=Phase.TRAIN)
    assert len(read_metrics(home, "j", 1)) == 1
    log.log(LOSS, 1.0, phase=Phase.TRAIN)
    log.log(PHASE_END, 1.0, phase=Phase.TRAIN)
    assert [sample.name for sample in read_metrics(home, "j", 1)] == [PHASE_START, LOSS, PHASE_END]
    assert files(home) == ["part-0-000000.parquet", "part-0-000001.parquet"]


def test_a_log_opened_again_adds_to_what_is_there(home: Home, clock: Clock) -> None:
    for value in (1.0, 2.0):
        with MetricLog(home.metrics("j", 1), clock_ns=clock) as log:
            log.log(LOSS, value, phase=Phase.TRAIN)
    assert [sample.value for sample in read_metrics(home, "j", 1)] == [1.0, 2.0]


def test_an_error_in_the_attempt_does_not_lose_its_last_rows(home: Home, clock: Clock) -> None:
    def attempt() -> None:
        with MetricLog(home.metrics("j", 1), clock_ns=clock) as log:
            log.log(LOSS, 1.0, phase=Phase.TRAIN)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        attempt()
    assert len(read_metrics(home, "j", 1)) == 1


def test_ranks_write_apart_and_are_read_together_in_order_of_time(home: Home, clock: Clock) -> None:
    with (
        MetricLog(home.metrics("j", 1), rank=1, clock_ns=clock) as one,
        MetricLog(home.metrics("j", 1), rank=0, clock_ns=clock) as zero,
    ):
        one.log(LOSS, 1.0, phase=Phase.TRAIN)
        clock.advance(0.1)
        zero.log(LOSS, 2.0, phase=Phase.TRAIN)
        clock.advance(0.1)
        one.log(LOSS, 3.0, phase=Phase.TRAIN)
    assert files(home) == ["part-0-000000.parquet", "part-1-000000.parquet"]
    assert [(s.rank, s.value) for s in read_metrics(home, "j", 1)] == [(1, 1.0), (0, 2.0), (1, 3.0)]


def test_rows_of_the_same_time_stay_in_the_order_they_were_logged(home: Home, clock: Clock) -> None:
    with MetricLog(home.metrics("j", 1), clock_ns=clock) as log:
        for step in range(20):
            log.log(LOSS, 1.0, phase=Phase.TRAIN, step=step)
    assert [sample.step for sample in read_metrics(home, "j", 1)] == list(range(20))


def test_a_row_reads_back_as_it_was_logged_to_the_microsecond(home: Home, clock: Clock) -> None:
    with MetricLog(home.metrics("j", 1), rank=2, clock_ns=clock) as log:
        log.log("score/accuracy", 1, phase=Phase.BASELINE, time_ns=START_NS + 1_600)
        log.log("note", 0.25, phase=None, step=7, time_ns=START_NS + 9_000)
    assert read_metrics(home, "j", 1) == (
        MetricSample(
            time_ns=START_NS + 2_000, rank=2, phase=Phase.BASELINE, step=None, name="score/accuracy", value=1.0
        ),
        MetricSample(time_ns=START_NS + 9_000, rank=2, phase=None, step=7, name="note", value=0.25),
    )


def test_a_loss_that_diverged_is_kept_as_it_was(home: Home, clock: Clock) -> None:
    with MetricLog(home.metrics("j", 1), clock_ns=clock) as log:
        log.log(LOSS, math.inf, phase=Phase.TRAIN)
        log.log(LOSS, math.nan, phase=Phase.TRAIN)
    first, second = read_metrics(home, "j", 1)
    assert first.value == math.inf
    assert math.isnan(second.value)
