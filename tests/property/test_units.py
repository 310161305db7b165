"""Units: integers that are split add up again, and conversions undo each other."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.units import (
    MJ_PER_KWH,
    NS_PER_S,
    PJ_PER_MJ,
    apportion,
    joules_to_kwh,
    kwh_to_joules,
    mean_power_w,
    mj_to_joules,
    mj_to_kwh,
)

totals = st.integers(min_value=0, max_value=10**18)
weights = st.lists(st.integers(min_value=0, max_value=10**15), min_size=1, max_size=12)
energies = st.floats(min_value=1e-9, max_value=1e9)


@pytest.mark.parametrize(
    ("total", "given_weights"),
    [(5, []), (-1, [1, 2]), (5, [1, -1])],
    ids=["no weights", "negative total", "negative weight"],
)
def test_what_cannot_be_apportioned_is_refused(total: int, given_weights: list[int]) -> None:
    with pytest.raises(ValueError, match=f"cannot apportion {total}"):
        apportion(total, given_weights)


@given(totals, weights)
def test_the_parts_add_up_to_the_total_exactly(total: int, given_weights: list[int]) -> None:
    parts = apportion(total, given_weights)
    assert sum(parts) == total
    assert len(parts) == len(given_weights)


@given(totals, weights.filter(any))
def test_each_part_is_its_exact_share_rounded_down_or_up(total: int, given_weights: list[int]) -> None:
    whole = sum(given_weights)
    for part, weight in zip(apportion(total, given_weights), given_weights, strict=True):
        assert total * weight // whole <= part <= -(-total * weight // whole)


@given(totals, weights.filter(any))
def test_what_weighs_nothing_gets_nothing(total: int, given_weights: list[int]) -> None:
    parts = apportion(total, given_weights)
    assert all(part == 0 for part, weight in zip(parts, given_weights, strict=True) if weight == 0)


@given(totals, weights.filter(any))
def test_who_weighs_more_never_gets_less(total: int, given_weights: list[int]) -> None:
    parts = apportion(total, given_weights)
    by_weight = sorted(zip(given_weights, parts, strict=True))
    assert all(poorer <= richer for (light, poorer), (heavy, richer) in itertools.pairwise(by_weight) if light < heavy)


@given(totals, st.integers(min_value=1, max_value=12))
def test_where_nothing_tells_parts_apart_they_differ_by_one_at_most(total: int, count: int) -> None:
    parts = apportion(total, [0] * count)
    assert parts == apportion(total, [1] * count)
    assert max(parts) - min(parts) <= 1


def test_a_tie_of_remainders_goes_to_the_earlier_part() -> None:
    assert apportion(5, [1, 1]) == [3, 2]
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]


def test_the_largest_remainder_gets_the_odd_one() -> None:
    # Shares 2.31, 2.31 and 5.38: whole parts 2, 2 and 5 leave one over.
    assert apportion(10, [3, 3, 7]) == [2, 2, 6]


def test_milliwatts_times_nanoseconds_are_picojoules() -> None:
    # 1000 mW for 1 s is 1 J.
    assert 1000 * NS_PER_S == 1000 * PJ_PER_MJ


def test_a_kilowatt_hour_is_3_6_megajoules() -> None:
    assert mj_to_kwh(MJ_PER_KWH) == 1.0
    assert mj_to_joules(MJ_PER_KWH) == kwh_to_joules(1.0) == 3.6e6


@given(energies)
def test_kilowatt_hours_to_joules_and_back_is_the_same_energy(energy_kwh: float) -> None:
    assert joules_to_kwh(kwh_to_joules(energy_kwh)) == pytest.approx(energy_kwh, rel=1e-15)


@pytest.mark.parametrize("duration_s", [0.0, -1.0])
def test_where_no_time_passed_there_is_no_mean_power(duration_s: float) -> None:
    assert mean_power_w(1.0, duration_s) is None


def test_a_kilowatt_hour_in_an_hour_is_a_kilowatt() -> None:
    assert mean_power_w(1.0, 3600.0) == 1000.0
