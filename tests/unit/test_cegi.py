"""CEGI: hand-worked figures, and a sentence of its own for each way it cannot be computed."""

from __future__ import annotations

import math

import pytest

from orchestrator import cegi as module
from orchestrator.cegi import Cegi, Gain, cegi, gain_percent, no_gain


def gain(percent: float) -> Gain:
    return Gain(percent=percent, reason=None)


@pytest.mark.parametrize(
    ("base", "score", "reason"),
    [
        (None, 0.5, module.NO_BASELINE),
        (None, None, module.NO_BASELINE),
        (0.5, None, module.NO_SCORE),
        (math.nan, 0.5, module.NOT_A_NUMBER),
        (0.5, math.inf, module.NOT_A_NUMBER),
        (0.0, 0.5, module.BASE_IS_ZERO),
        (-0.0, 0.5, module.BASE_IS_ZERO),
        (5e-324, 1.0, module.OUT_OF_RANGE),
    ],
)
def test_a_gain_that_cannot_be_said_has_its_reason(base: float | None, score: float | None, reason: str) -> None:
    assert gain_percent(base, score) == Gain(percent=None, reason=reason)


@pytest.mark.parametrize(
    ("grams", "percent", "parameters", "reason"),
    [
        (None, 10.0, 1_000_000, module.NO_CARBON),
        (math.nan, 10.0, 1_000_000, module.NO_CARBON),
        (0.0, 10.0, 1_000_000, module.ZERO_CARBON),
        (5.0, 10.0, None, module.NO_PARAMETERS),
        (5.0, 10.0, 0, module.NO_PARAMETERS),
        (5.0, 0.0, 1_000_000, no_gain(0.0)),
        (5.0, -3.0, 1_000_000, no_gain(-3.0)),
        (math.inf, 10.0, 1_000_000, module.OUT_OF_RANGE),
        (5e-324, 10.0, 1_000_000, module.OUT_OF_RANGE),
    ],
)
def test_a_figure_that_cannot_be_computed_has_its_reason(
    grams: float | None, percent: float, parameters: int | None, reason: str
) -> None:
    found = cegi(grams, gain(percent), parameters)
    assert (found.value, found.reason) == (None, reason)


def test_the_reason_for_no_gain_is_passed_on() -> None:
    assert cegi(5.0, gain_percent(0.0, 1.0), 1_000_000) == Cegi(
        value=None, reason=module.BASE_IS_ZERO, g_per_percent=None
    )


def test_every_reason_is_a_different_sentence() -> None:
    reasons = [
        module.NO_BASELINE,
        module.NO_SCORE,
        module.NOT_A_NUMBER,
        module.BASE_IS_ZERO,
        module.NO_CARBON,
        module.ZERO_CARBON,
        module.NO_PARAMETERS,
        module.OUT_OF_RANGE,
        no_gain(-3.0),
    ]
    assert len(set(reasons)) == len(reasons)


def test_grams_per_percent_stand_even_where_no_parameters_are_known() -> None:
    assert cegi(5.0, gain(10.0), None).g_per_percent == 0.5


def test_from_half_to_three_quarters_is_a_gain_of_fifty_percent_or_25_points() -> None:
    assert gain_percent(0.5, 0.75) == gain(50.0)
    assert gain_percent(0.5, 0.75, mode="points") == gain(25.0)


def test_where_less_is_better_a_fall_is_a_gain() -> None:
    assert gain_percent(20.0, 15.0, lower_is_better=True) == gain(25.0)
    assert gain_percent(20.0, 25.0, lower_is_better=True) == gain(-25.0)


def test_a_base_below_zero_still_gains_by_rising() -> None:
    assert gain_percent(-0.5, 0.25) == gain(150.0)


def test_from_a_base_of_zero_points_can_be_gained() -> None:
    assert gain_percent(0.0, 0.5, mode="points") == gain(50.0)


def test_twelve_grams_for_eight_percent_with_three_million_parameters_are_half_a_gram() -> None:
    assert cegi(12.0, gain(8.0), 3_000_000) == Cegi(value=0.5, reason=None, g_per_percent=1.5)
