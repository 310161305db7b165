"""Precision, recall, F1 and AUC, worked out by hand or as scikit-learn's documentation has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import InputError
from workers.quality.classification import METRICS, evaluate

TRUE, SAID = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 2, 1, 0, 0, 1])
"""The example of scikit-learn's ``f1_score``: two zeros found, one said too often, nothing else right."""


def test_auc_of_labels_outside_the_probabilities_is_refused() -> None:
    with pytest.raises(InputError, match="Labels run from 0 to 2, but the probabilities are of 2"):
        evaluate("auc", np.array([0.1, 0.9, 0.5]), np.array([0, 1, 2]))


def test_auc_where_a_class_never_occurs_is_unknown() -> None:
    result = evaluate("auc", np.array([0.1, 0.9]), np.array([1, 1]))
    assert result.value is None
    assert result.reason == "class 0 never occurs, so its area under the ROC curve is undefined"


def test_auc_of_what_is_not_a_number_is_unknown() -> None:
    assert evaluate("auc", np.array([0.1, np.nan]), np.array([0, 1])).reason == "a probability is not a number"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Class 0: precision 2/3, recall 1, F1 4/5; the others 0.
        ("precision_macro", 2 / 9),
        ("recall_macro", 1 / 3),
        ("f1_macro", 4 / 15),
        ("f1_weighted", 4 / 15),
        ("precision_micro", 1 / 3),
        ("recall_micro", 1 / 3),
        ("f1_micro", 1 / 3),
        ("accuracy", 1 / 3),
    ],
)
def test_scores_agree_with_the_example_of_scikit_learn(name: str, expected: float) -> None:
    assert evaluate(name, SAID, TRUE).value == pytest.approx(expected, rel=1e-12)


def test_a_weighted_mean_counts_a_class_as_often_as_it_is_true() -> None:
    # Class 0 (three times): precision 1, recall 2/3. Class 1 (once): precision 1/2, recall 1.
    true, said = [0, 0, 0, 1], [0, 0, 1, 1]
    assert evaluate("precision_weighted", said, true).value == pytest.approx((3 * 1 + 1 / 2) / 4, rel=1e-12)
    assert evaluate("recall_weighted", said, true).value == pytest.approx((3 * 2 / 3 + 1) / 4, rel=1e-12)


def test_accuracy_has_a_figure_for_each_item_and_the_others_have_none() -> None:
    assert evaluate("accuracy", SAID, TRUE).per_item == (1, 0, 0, 1, 0, 0)
    assert evaluate("f1_macro", SAID, TRUE).per_item is None


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    # scikit-learn's example: of the four pairs, only (0.4, 0.35) is the wrong way around.
    true, given_ = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert evaluate("auc", given_, true).value == 0.75
    assert evaluate("auc", np.column_stack([1 - given_, given_]), true).value == 0.75


def test_auc_of_three_classes_is_the_mean_of_each_against_the_rest() -> None:
    # Class 0: (0.9) over (0.2, 0.8): 1. Class 1: (0.6) over (0.1, 0.2): 1. Class 2: (0.0) over (0.0, 0.2): 1/4.
    given_ = np.array([[0.9, 0.1, 0.0], [0.2, 0.6, 0.2], [0.8, 0.2, 0.0]])
    assert evaluate("auc", given_, np.array([0, 1, 2])).value == pytest.approx((1 + 1 + 1 / 4) / 3, rel=1e-12)


@settings(deadline=None, max_examples=15)  # each example asks scikit-learn forty times
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_the_right_labels_score_all_and_the_order_does_not_matter(pairs) -> None:
    said, true = (list(column) for column in zip(*pairs, strict=True))
    for name in METRICS:
        assert evaluate(name, true, true).value == 1
        value = evaluate(name, said, true).value
        assert value is not None
        assert 0 <= value <= 1
        assert evaluate(name, said[::-1], true[::-1]).value == pytest.approx(value, rel=1e-12)
