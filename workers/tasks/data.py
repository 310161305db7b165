"""What a task hands to training: arrays, and nothing of the library they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Split:
    """Inputs and labels of one split.

    Attributes:
        inputs: ``(n, channels, height, width)`` float32 in [-1, 1] for images.
        labels: ``(n,)`` int64 class indices.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The data of one job.

    Attributes:
        source: what a base model built from a configuration is first trained on, standing in for pretraining.
        train: what is fine-tuned on.
        test: what baseline and final scores are taken on; disjoint from ``train`` and ``source``.
        classes: number of labels.
    """

    source: Split
    train: Split
    test: Split
    classes: int
