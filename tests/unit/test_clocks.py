"""Clocks that differ are measured as NTP does, kept per node, and told of where they are a second off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.accounting.clocks import (
    ClockReading,
    Clocks,
    clock_at,
    measure,
    note_clocks,
    offset_of,
    read_clock,
    skews,
)
from orchestrator.cluster.fake import FakeCluster
from orchestrator.scheduling.snapshot import NodeView
from workers.home import Home

MS = 1_000_000


def reading(offset_ms: float, *, time_ns: int = 0, uncertainty_ms: float = 1.0, node: str = "n") -> ClockReading:
    return ClockReading(
        node=node, time_ns=time_ns, offset_ns=round(offset_ms * MS), uncertainty_ns=round(uncertainty_ms * MS)
    )


@pytest.mark.parametrize(
    ("times_ms", "offset_ms", "uncertainty_ms"),
    [
        ((0, 0, 0, 0), 0, 0),
        ((100, 105, 106, 111), 0, 5),
        ((100, 3105, 3106, 111), 3000, 5),
        ((100, 95, 95, 110), -10, 5),
        # All of the way out, none back: off by the uncertainty, and no more.
        ((100, 120, 120, 120), 10, 10),
    ],
)
def test_an_exchange_tells_the_offset_and_how_wrong_it_may_be(
    times_ms: tuple[int, int, int, int], offset_ms: int, uncertainty_ms: int
) -> None:
    assert offset_of(*(t * MS for t in times_ms)) == (offset_ms * MS, uncertainty_ms * MS)


def test_the_quickest_exchange_of_several_counts() -> None:
    head = iter([0, 100, 100, 102, 102, 150, 150, 190, 190, 200, 200])
    node: Iterator[tuple[int, int]] = iter([(90, 90), (1101, 1101), (1110, 1110), (1111, 1111), (1112, 1112)])
    assert measure("n", lambda: next(node), lambda: next(head)) == ClockReading(
        node="n", time_ns=200, offset_ns=1000, uncertainty_ns=1
    )


def test_a_clock_that_was_never_measured_is_not_known_and_corrects_nothing(tmp_path: Path) -> None:
    clocks = Clocks(Home(tmp_path))
    assert (clocks.of("n", 0), clocks.of(None, 0), clocks.offset_ns("n", 0)) == (None, None, 0)
    assert skews(clocks, {"n": 0}) == ()


def test_a_torn_line_is_no_measurement(tmp_path: Path) -> None:
    home = Home(tmp_path)
    note_clocks(home, [reading(1, time_ns=5), reading(2, time_ns=9)])
    path = home.clock("n")
    path.write_text(path.read_text() + '{"node": "n", "time_ns"\n[1]\n{"more": 1}\n')
    assert read_clock(home, "n") == (reading(1, time_ns=5), reading(2, time_ns=9))


def test_a_ledger_that_cannot_be_written_goes_without(tmp_path: Path) -> None:
    (tmp_path / "clocks").write_text("a file where the folder would be")
    note_clocks(Home(tmp_path), [reading(1)])
    assert read_clock(Home(tmp_path), "n") == ()


def test_the_measurement_nearest_in_time_counts() -> None:
    measured = [reading(1, time_ns=0), reading(2, time_ns=100)]
    assert [found.offset_ns // MS for t in (-5, 49, 51, 999) if (found := clock_at(measured, t))] == [1, 1, 2, 2]
    assert clock_at([], 0) is None


@pytest.mark.parametrize(
    ("offset_ms", "uncertainty_ms", "told"),
    [(900, 1, False), (1001, 2, False), (1003, 2, True), (-2500, 1, True), (5000, 4500, False)],
)
def test_a_clock_is_told_of_where_it_is_surely_a_second_off(
    tmp_path: Path, offset_ms: float, uncertainty_ms: float, told: bool
) -> None:
    note_clocks(Home(tmp_path), [reading(offset_ms, uncertainty_ms=uncertainty_ms)])
    assert bool(skews(Clocks(Home(tmp_path)), {"n": 0})) is told


def test_a_fake_node_is_as_far_off_as_it_was_told_to_be(tmp_path: Path) -> None:
    node = NodeView(
        node_id="id-1", name="node-1", accelerator="T4", simulated=True, gpus_total=1, gpus_free=1, cpus_total=1.0,
        cpus_free=1.0, memory_free_gb=None,
    )  # fmt: skip
    (found,) = FakeCluster((node,), offsets_ns={"id-1": -3_000 * MS}).clocks()
    assert (found.node, found.offset_ns, found.uncertainty_ns, found.is_skewed) == ("node-1", -3_000 * MS, MS, True)
