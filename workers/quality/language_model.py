"""How well a language model knows the next, or the masked, token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workers.errors import InputError, UnknownNameError
from workers.quality.result import ScoreResult, check_pairs, scored, unknown

IGNORED = -100
"""The label of a position that does not count, as in transformers."""
_NAMES = ("loss", "perplexity", "masked_accuracy")


def evaluate(
    name: str, predictions: Sequence[NDArray[np.generic]], references: Sequence[NDArray[np.int64]]
) -> ScoreResult:
    """The score ``name`` over all positions of all items whose reference is not -100.

    Args:
        name: ``loss`` (mean cross-entropy per token, in nats), ``perplexity`` (its exponential) or ``masked_accuracy``.
        predictions: for each item ``(length,)``: for ``masked_accuracy`` the most likely token at each position; else
            the natural logarithm of the probability the model gave to the true one.
        references: for each item ``(length,)`` true tokens, -100 where a position does not count.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, or not one prediction for each item and position.
    """
    if name not in _NAMES:
        raise UnknownNameError("score", name, _NAMES)
    check_pairs(name, len(predictions), len(references))
    said, counts = [], []
    for index, (given, labels) in enumerate(zip(predictions, references, strict=True)):
        true = np.asarray(labels)
        if np.shape(given) != true.shape:
            raise InputError(f"Item {index} has {true.shape} labels and {np.shape(given)} predictions; give one each.")
        counted = true != IGNORED
        values = np.asarray(given)[counted]
        said.append(math.fsum(values == true[counted]) if name == "masked_accuracy" else -math.fsum(values))
        counts.append(int(counted.sum()))
    if not sum(counts):
        return unknown(name, "every position is left out (-100)")
    shape = _exp if name == "perplexity" else float
    items = [shape(total / count) if count else None for total, count in zip(said, counts, strict=True)]
    return scored(name, shape(math.fsum(said) / sum(counts)), per_item=items)


def _exp(loss: float) -> float:
    """The exponential; infinite, and so unknown, where it leaves the range of a float."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf
