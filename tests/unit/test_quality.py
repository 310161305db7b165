"""Scores of predictions, against values worked out by hand."""

import numpy as np
import pytest

from workers.errors import InputError, UnknownNameError
from workers.quality.classification import METRICS, score
from workers.tasks import TASKS


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'accuracy'.*Known: accuracy, f1_macro"):
        score("acuracy", np.array([1]), np.array([1]))


@pytest.mark.parametrize("metric", METRICS)
def test_no_predictions_have_no_score(metric: str) -> None:
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(InputError, match=f"{metric} of no predictions is undefined; give at least one"):
        score(metric, nothing, nothing)


@pytest.mark.parametrize("metric", METRICS)
def test_predictions_that_do_not_pair_with_labels_are_refused(metric: str) -> None:
    with pytest.raises(InputError, match="2 predictions cannot be scored against 3 labels; give one for each"):
        score(metric, np.array([0, 1, 2]), np.array([0, 1]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("predictions", "expected"), [([0, 1, 2], 1.0), ([1, 2, 0], 0.0)])
def test_all_right_is_one_and_all_wrong_is_zero(metric: str, predictions: list[int], expected: float) -> None:
    assert score(metric, np.array([0, 1, 2]), np.array(predictions)) == expected


def test_accuracy_is_the_share_that_is_right() -> None:
    assert score("accuracy", np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == 0.75


def test_macro_f1_counts_classes_alike_however_rare() -> None:
    # Class 0: precision 3/4, recall 1, F1 6/7. Class 1: never predicted, F1 0.
    assert score("f1_macro", np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == pytest.approx(3 / 7, rel=1e-12)


def test_macro_f1_counts_a_class_that_is_only_predicted() -> None:
    # Class 0: precision 1, recall 1/2, F1 2/3. Class 5: precision 0, F1 0.
    assert score("f1_macro", np.array([0, 0]), np.array([0, 5])) == pytest.approx(1 / 3, rel=1e-12)


def test_every_metric_a_classification_task_names_is_known() -> None:
    assert set(TASKS["digits"].metrics) <= set(METRICS)
