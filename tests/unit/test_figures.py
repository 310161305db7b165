"""Figures as people read them: no exponents, no false precision, and unknown is a dash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compare.table import Spread, spread
from orchestrator.report.figures import (
    energy_unit,
    format_duration,
    format_g,
    format_interval,
    format_number,
    format_percent,
    format_spread,
    format_time,
    format_wh,
    mass_unit,
    split_spread,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (-3.0, "0 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7100.0, "118 min"),
        (7500.0, "2 h 05 min"),
        (172_799.0, "2 d 00 h"),
        (360_000.0, "4 d 04 h"),
    ],
)
def test_a_stretch_of_time_has_its_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


def test_a_moment_is_told_in_utc_to_the_second():
    assert format_time(1_704_110_400_999_999_999) == "2024-01-01 12:00:00Z"


@pytest.mark.parametrize("format_one", [format_number, format_wh, format_g, format_percent])
def test_unknown_is_a_dash_and_not_zero(format_one):
    assert format_one(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.9996, "1.00"),
        (99.96, "100"),
        (12345.678, "12,346"),
        (0.000012345678, "0.0000123"),
        (-3.14159, "−3.14"),
        (-1e-30, "0.000000000000"),
        (2.0, "2.00"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("kwh", "text"),
    [
        (0.0, "0 Wh"),
        (0.000123456, "0.123 Wh"),
        (0.0000123456, "12.3 mWh"),
        (0.0123456, "12.3 Wh"),
        (0.5, "500 Wh"),
        (12.3456, "12.3 kWh"),
        (4567.0, "4.57 MWh"),
        (2e-12, "0.00200 µWh"),
    ],
)
def test_energy_is_shown_in_the_unit_that_suits_it(kwh, text):
    assert format_wh(kwh) == text


@pytest.mark.parametrize(
    ("grams", "text"),
    [
        (0.0456, "45.6 mg"),
        (0.456, "0.456 g"),
        (456.0, "456 g"),
        (1234.0, "1.23 kg"),
        (3.2e6, "3.20 t"),
        (4e-5, "40.0 µg"),
    ],
)
def test_mass_is_shown_in_the_unit_that_suits_it(grams, text):
    assert format_g(grams) == text


def test_percentages_carry_their_sign():
    assert format_percent(12.34) == "+12.3 %"
    assert format_percent(-0.5) == "−0.500 %"
    assert format_percent(0.0) == "0 %"
    assert format_percent(12.34, signed=False) == "12.3 %"


def test_a_column_has_one_unit_chosen_by_its_middle_value():
    assert energy_unit([0.00002, 0.00003, 5.0]).symbol == "mWh"
    assert energy_unit([None, 0.0, None]).symbol == "Wh"
    assert mass_unit([0.002, 0.003, None]).symbol == "mg"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "–"),
        ([0.5], "0.500 ± –"),
        ([2.0, 2.0], "2.00 ± 0"),
        ([0.912, 0.898], "0.9050 ± 0.0099"),
        ([12.0, 78.0], "45 ± 47"),
        ([1000.0, 3000.0], "2,000 ± 1,414"),
        ([100.0, 100.00002], "100.000 ± 0.00001"),
    ],
)
def test_a_spread_is_shown_with_the_decimals_its_deviation_deserves(values, text):
    assert format_spread(spread(values)) == text


def test_a_spread_is_shown_in_the_columns_unit():
    assert split_spread(spread([0.001, 0.003]), energy_unit([0.002])) == ("2.0", "1.4")
    assert format_spread(spread([10.0, 12.0]), signed=True) == "+11.0 ± 1.4"


def test_an_interval_shows_ends_that_are_much_smaller_than_the_mean():
    assert format_interval(Spread(mean=2.2, sd=3.6, n=3, low=0.034, high=6.4)) == "0.034 to 6.4"


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0]])
def test_there_is_no_interval_where_there_is_no_spread(values):
    assert format_interval(spread(values)) == "–"


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_shown_number_is_within_half_a_percent_and_has_no_exponent(value):
    text = format_number(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)


@given(st.floats(min_value=1e-9, max_value=1e6))
def test_an_energy_reads_back_from_its_unit(kwh):
    number, unit = format_wh(kwh).split(" ")
    factor = {"µWh": 1e-9, "mWh": 1e-6, "Wh": 1e-3, "kWh": 1.0, "MWh": 1e3}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(kwh, rel=0.006)


@given(st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=2, max_size=6))
def test_mean_and_deviation_are_never_shown_as_zero_when_they_are_not(values):
    shown = spread(values)
    mean, sd = split_spread(shown)
    assert float(mean.replace(",", "")) > 0
    assert (float(sd.replace(",", "")) > 0) == (shown.sd > 1e-12)
