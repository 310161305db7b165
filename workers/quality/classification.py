"""Scores of predicted labels against true ones, between 0 and 1, higher is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.errors import InputError, UnknownNameError
from workers.quality.packages import installed
from workers.quality.result import ScoreResult, check_pairs, scored, unknown

Labels = NDArray[np.int64]


def score(metric: str, labels: Labels, predictions: Labels) -> float:
    """The score of ``predictions`` against ``labels``, both ``(n,)`` class indices in the same order.

    ``accuracy`` is the share that is right. F1, precision and recall are ``_macro``, the mean over classes;
    ``_weighted``, the mean weighted by how often a class is true; and ``_micro``, counted over all. The classes are
    those that occur in either, and one that is never right scores 0.

    Raises:
        UnknownNameError: no such metric.
        InputError: nothing to score, or not one prediction for each label.
        JobError: scikit-learn is missing.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    check_pairs(metric, len(predictions), len(labels), what="labels")
    return METRICS[metric](labels, predictions)


def evaluate(name: str, predictions: ArrayLike, references: ArrayLike) -> ScoreResult:
    """The score ``name`` of predicted class indices or, for ``auc``, of probabilities, against the true classes.

    ``auc`` takes ``(n,)`` probabilities of class 1 where there are two classes, or ``(n, classes)`` ones; with more
    than two classes it is the mean over classes of each against the rest. It is unknown where a class never occurs.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, or not one prediction for each label.
        JobError: scikit-learn is missing.
    """
    labels, answers = np.asarray(references), np.asarray(predictions)
    if name == "auc":
        check_pairs(name, len(answers), len(labels), what="labels")
        return _auc(name, answers, labels)
    value = score(name, labels, answers)
    items = (answers == labels).astype(float).tolist() if name == "accuracy" else None
    return scored(name, value, per_item=items)


def _auc(name: str, probabilities: NDArray[np.float64], labels: Labels) -> ScoreResult:
    """The area under the ROC curve; scikit-learn only warns and answers NaN where it is undefined."""
    if not np.isfinite(probabilities).all():
        return unknown(name, "a probability is not a number")
    classes = 2 if probabilities.ndim == 1 else probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"Labels run from {labels.min()} to {labels.max()}, but the probabilities are of {classes}.")
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    if absent:
        return unknown(name, f"class {absent[0]} never occurs, so its area under the ROC curve is undefined")
    with installed(name, "scikit-learn"):
        from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - heavy
    if classes == 2:
        positive = probabilities if probabilities.ndim == 1 else probabilities[:, 1]
        return scored(name, float(roc_auc_score(labels, positive)))
    areas = [float(roc_auc_score(labels == one, probabilities[:, one])) for one in range(classes)]
    return scored(name, sum(areas) / classes, note="mean over classes, each against the rest")


def _accuracy(labels: Labels, predictions: Labels) -> float:
    with installed("accuracy", "scikit-learn"):
        from sklearn.metrics import accuracy_score  # noqa: PLC0415 - heavy
    return float(accuracy_score(labels, predictions))


def _averaging(function: str, average: str) -> Callable[[Labels, Labels], float]:
    """F1, precision or recall over classes."""

    def of(labels: Labels, predictions: Labels) -> float:
        with installed(f"{function}_{average}", "scikit-learn"):
            from sklearn import metrics  # noqa: PLC0415 - heavy
        return float(getattr(metrics, f"{function}_score")(labels, predictions, average=average, zero_division=0.0))

    return of


METRICS: dict[str, Callable[[Labels, Labels], float]] = {
    "accuracy": _accuracy,
    **{
        f"{function}_{average}": _averaging(function, average)
        for function in ("f1", "precision", "recall")
        for average in ("macro", "micro", "weighted")
    },
}
"""Every score of labels alone, by name; ``auc`` takes probabilities and goes through ``evaluate``."""
