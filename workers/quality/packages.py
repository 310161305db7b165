"""Packages that only scores need, and what to say where one is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from workers.errors import JobError

_IMPORTED = {
    "nltk": "nltk.translate.meteor_score",
    "pycocotools": "pycocotools.cocoeval",
    "rouge-score": "rouge_score.rouge_scorer",
    "sacrebleu": "sacrebleu.metrics.bleu",
    "scikit-learn": "sklearn.metrics",
    "scipy": "scipy.optimize",
}
"""The part of each package that scores import, and that takes the time."""


@contextmanager
def installed(score: str, package: str) -> Iterator[None]:
    """Around the import of ``package`` for ``score``.

    Raises:
        JobError: it is not installed; names the extra that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise JobError(
            f"The score {score} needs the package {package}, which is not installed here; "
            "pip install 'wattledger[quality]' on this node."
        ) from error


def load(score: str, package: str) -> None:
    """Import what ``score`` uses of ``package``, without using it.

    Raises:
        JobError: it is not installed.
    """
    with installed(score, package):
        importlib.import_module(_IMPORTED[package])
