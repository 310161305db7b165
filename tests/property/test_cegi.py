"""CEGI's laws of scale, and that it is never 0, infinite or not a number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cegi import Gain, GainMode, cegi, gain_percent

GRAMS = st.floats(1e-6, 1e9)
PERCENT = st.floats(1e-3, 1e5)
PARAMETERS = st.integers(1, 10**12)
SCORES = st.floats(0.01, 100)


def value(grams: float, percent: float, parameters: int) -> float:
    found = cegi(grams, Gain(percent=percent, reason=None), parameters).value
    assert found is not None
    return found


@given(GRAMS, PERCENT, PARAMETERS)
def test_twice_the_carbon_is_twice_the_figure(grams: float, percent: float, parameters: int) -> None:
    assert value(2 * grams, percent, parameters) == 2 * value(grams, percent, parameters)


@given(GRAMS, PERCENT, PARAMETERS)
def test_twice_the_gain_is_half_the_figure(grams: float, percent: float, parameters: int) -> None:
    assert value(grams, 2 * percent, parameters) == value(grams, percent, parameters) / 2


@given(GRAMS, PERCENT, PARAMETERS)
def test_half_the_parameters_is_twice_the_figure(grams: float, percent: float, parameters: int) -> None:
    assert value(grams, percent, parameters) == 2 * value(grams, percent, 2 * parameters)


@given(GRAMS, PERCENT, PARAMETERS)
def test_the_figure_times_millions_is_grams_per_percent(grams: float, percent: float, parameters: int) -> None:
    found = cegi(grams, Gain(percent=percent, reason=None), parameters)
    assert found.value is not None
    assert found.value * (parameters / 1e6) == pytest.approx(found.g_per_percent, rel=1e-12)


MAYBE = st.none() | st.floats()


@given(
    scores=st.tuples(MAYBE, MAYBE),
    grams=MAYBE,
    parameters=st.none() | st.integers(-1, 10**15),
    lower_is_better=st.booleans(),
    mode=st.sampled_from(["relative", "points"]),
)
def test_whatever_comes_in_a_figure_is_positive_and_finite_or_has_a_reason(
    *,
    scores: tuple[float | None, float | None],
    grams: float | None,
    parameters: int | None,
    lower_is_better: bool,
    mode: GainMode,
) -> None:
    gain = gain_percent(*scores, lower_is_better=lower_is_better, mode=mode)
    assert (gain.percent is None) != (gain.reason is None)
    assert gain.percent is None or math.isfinite(gain.percent)
    found = cegi(grams, gain, parameters)
    assert (found.value is None) != (found.reason is None)
    assert found.reason != ""
    for figure in (found.value, found.g_per_percent):
        assert figure is None or (math.isfinite(figure) and figure > 0)


@given(SCORES, SCORES)
def test_a_better_score_gains_and_turning_the_direction_turns_the_sign(base: float, score: float) -> None:
    up = gain_percent(base, score).percent
    down = gain_percent(base, score, lower_is_better=True).percent
    assert up is not None
    assert down == -up
    assert (up > 0) == (score > base)


@given(SCORES, SCORES, st.sampled_from([0.125, 0.5, 2.0, 64.0]))
def test_a_relative_gain_does_not_depend_on_the_scores_scale(base: float, score: float, scale: float) -> None:
    assert gain_percent(base * scale, score * scale) == gain_percent(base, score)
