"""Loss, perplexity and masked accuracy, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import InputError, UnknownNameError
from workers.quality.language_model import evaluate

HALF, QUARTER = math.log(1 / 2), math.log(1 / 4)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'perplexity'"):
        evaluate("perplexities", [np.zeros(1)], [np.zeros(1, int)])


def test_a_figure_for_each_position_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"Item 0 has \(2,\) labels and \(1,\) predictions"):
        evaluate("loss", [np.zeros(1)], [np.zeros(2, int)])


def test_where_no_position_counts_there_is_no_score() -> None:
    result = evaluate("loss", [np.zeros(2)], [np.array([-100, -100])])
    assert (result.value, result.reason) == (None, "every position is left out (-100)")


def test_a_token_of_no_probability_makes_the_loss_unknown() -> None:
    result = evaluate("loss", [np.array([-np.inf])], [np.array([1])])
    assert (result.value, result.reason, result.per_item) == (None, "loss came out as inf", (None,))


def test_a_perplexity_too_large_for_a_float_is_unknown() -> None:
    assert evaluate("perplexity", [np.array([-1000.0])], [np.array([1])]).value is None


def test_every_token_weighs_alike_whichever_item_it_is_in() -> None:
    # Three tokens of probability 1/2, one of 1/4: the loss is (3 log 2 + log 4)/4 = 5/4 log 2.
    given_ = [np.array([HALF, HALF, HALF]), np.array([QUARTER, 0.0])]
    labels = [np.array([5, 6, 7]), np.array([8, -100])]
    loss, perplexity = evaluate("loss", given_, labels), evaluate("perplexity", given_, labels)
    assert loss.value == pytest.approx(1.25 * math.log(2), rel=1e-12)
    assert perplexity.value == pytest.approx(2**1.25, rel=1e-12)
    assert perplexity.per_item == pytest.approx((2, 4), rel=1e-12)


def test_masked_accuracy_counts_the_masked_positions_only() -> None:
    said = [np.array([3, 9, 4]), np.array([1, 1])]
    result = evaluate("masked_accuracy", said, [np.array([3, -100, 5]), np.array([-100, -100])])
    assert (result.value, result.per_item) == (0.5, (0.5, None))


@given(st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=5), min_size=1, max_size=5))
def test_perplexity_is_never_below_one_and_is_the_exponential_of_the_loss(rows) -> None:
    labels = [np.zeros(len(row), int) for row in rows]
    loss = evaluate("loss", [np.array(row) for row in rows], labels).value
    perplexity = evaluate("perplexity", [np.array(row) for row in rows], labels).value
    assert loss is not None
    assert perplexity == pytest.approx(math.exp(loss), rel=1e-12)
    assert perplexity >= 1
