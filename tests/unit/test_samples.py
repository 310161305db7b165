"""A counter as it was sampled: late, twice, out of order, started anew, and never made up."""

from __future__ import annotations

import math

import pytest

from orchestrator.accounting.samples import CounterCurve, Series, put_together
from workers.units import NS_PER_S

S = NS_PER_S


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([], "nothing"),
        ([(0, 1.0)], "one sample"),
        ([(2 * S, 1.0), (20 * S, 2.0)], "starts too late"),
        ([(0, 1.0), (9 * S, 2.0)], "ends too early"),
        ([(-100 * S, 1.0), (5 * S, 2.0), (11 * S, 3.0)], "samples around the start too far apart"),
        ([(0, 1.0), (5 * S, 2.0), (100 * S, 3.0)], "samples around the end too far apart"),
    ],
)
def test_an_edge_that_samples_do_not_cover_is_not_made_up(samples: list[tuple[int, float]], why: str) -> None:
    assert CounterCurve(samples).between(1 * S, 10 * S) is None, why


def test_edges_between_samples_are_interpolated() -> None:
    samples = [(0, 100.0), (10 * S, 200.0), (20 * S, 600.0)]
    assert CounterCurve(samples).between(5 * S, 15 * S) == 400.0 - 150.0


def test_edges_on_samples_need_none_beyond() -> None:
    assert CounterCurve([(0, 100.0), (10 * S, 200.0)]).between(0, 10 * S) == 100.0


def test_far_apart_samples_between_the_edges_do_no_harm_to_a_counter() -> None:
    samples = [(0, 0.0), (10 * S, 10.0), (900 * S, 500.0), (910 * S, 510.0)]
    assert CounterCurve(samples).between(5 * S, 905 * S) == 500.0


@pytest.mark.parametrize("bad", [-5.0, math.nan, math.inf])
def test_a_value_no_counter_can_have_is_no_sample(bad: float) -> None:
    assert CounterCurve([(0, 100.0), (5 * S, bad), (10 * S, 200.0)]).between(0, 10 * S) == 100.0
    assert CounterCurve([(0, 100.0), (5 * S, bad)]).between(0, 5 * S) is None


def test_samples_that_come_late_and_twice_change_nothing() -> None:
    late = [(20 * S, 600.0), (0, 100.0), (10 * S, 200.0), (10 * S, 200.0), (0, 100.0)]
    assert CounterCurve(late).between(5 * S, 15 * S) == 400.0 - 150.0


def test_a_counter_that_started_anew_is_bridged_with_the_power_around_the_reset() -> None:
    # 5 W before and 2 W after, so 35 J in the 10 s between; the 5 J it shows by then are part of them.
    curve = CounterCurve([(0, 100.0), (10 * S, 150.0), (20 * S, 5.0), (30 * S, 25.0)])
    assert curve.between(0, 30 * S) == 50.0 + 35.0 + 20.0
    assert (curve.was_reset(0, 10 * S), curve.was_reset(0, 11 * S), curve.was_reset(20 * S, 30 * S)) == (
        False,
        True,
        False,
    )


def test_a_reset_at_the_end_is_bridged_with_the_power_before_it() -> None:
    assert CounterCurve([(0, 100.0), (10 * S, 150.0), (20 * S, 5.0)]).between(0, 20 * S) == 100.0


def test_a_reset_with_one_sample_on_each_side_counts_what_the_new_count_shows() -> None:
    assert CounterCurve([(0, 100.0), (10 * S, 7.0)]).between(0, 10 * S) == 7.0


def test_a_reset_never_takes_the_whole_counter_for_energy() -> None:
    # A board whose counter stood at 40 MJ falls by a joule: not a new start from nothing.
    samples = [(0, 4e7), (10 * S, 4e7 + 100), (20 * S, 4e7 + 99), (30 * S, 4e7 + 199)]
    assert CounterCurve(samples).between(0, 30 * S) == 300.0


def series(*samples: tuple[int, float]) -> Series:
    return Series(labels={}, samples=samples)


def test_a_device_that_is_scraped_twice_is_not_mixed_into_a_counter_that_falls() -> None:
    first = series((0, 100.0), (10 * S, 200.0), (20 * S, 300.0))
    second = series((1 * S, 105.0), (11 * S, 205.0), (21 * S, 305.0))
    joined = put_together([second, first])
    assert joined == [(0, 100.0), (10 * S, 200.0), (20 * S, 300.0), (21 * S, 305.0)]
    assert not CounterCurve(joined).was_reset(0, 21 * S)


def test_an_exporter_that_moved_goes_on_with_the_same_counter() -> None:
    assert (
        CounterCurve(put_together([series((20 * S, 3.0), (30 * S, 4.0)), series((0, 1.0), (10 * S, 2.0))])).between(
            0, 30 * S
        )
        == 3.0
    )


def test_no_samples_are_no_curve() -> None:
    assert put_together([series()]) == []
    assert CounterCurve([]).span is None
    assert CounterCurve([]).at(0) is None
