"""Scores of predicted labels against true ones, between 0 and 1, higher is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from workers.errors import InputError, UnknownNameError

Labels = NDArray[np.int64]


def score(metric: str, labels: Labels, predictions: Labels) -> float:
    """The score of ``predictions`` against ``labels``, both ``(n,)`` class indices in the same order.

    ``accuracy`` is the share that is right. ``f1_macro`` is the mean over classes of the harmonic mean of precision
    and recall; the classes are those that occur in either, and one that is never right scores 0.

    Raises:
        UnknownNameError: no such metric.
        InputError: nothing to score, or not one prediction for each label.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    if len(labels) != len(predictions):
        raise InputError(
            f"{len(predictions)} predictions cannot be scored against {len(labels)} labels; give one for each."
        )
    if len(labels) == 0:
        raise InputError(f"{metric} of no predictions is undefined; give at least one sample.")
    return METRICS[metric](labels, predictions)


def _accuracy(labels: Labels, predictions: Labels) -> float:
    return float(metrics.accuracy_score(labels, predictions))


def _f1_macro(labels: Labels, predictions: Labels) -> float:
    return float(metrics.f1_score(labels, predictions, average="macro", zero_division=0.0))


METRICS: dict[str, Callable[[Labels, Labels], float]] = {"accuracy": _accuracy, "f1_macro": _f1_macro}
