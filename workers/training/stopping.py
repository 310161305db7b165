"""Early stopping: which samples are held out of training, when their loss is looked at, and what was the best.

Held out is a tenth of the training split, which follows from the seed alone; the test split is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from workers.contract import Training
from workers.errors import JobError

HELD_OUT_SHARE = 0.1
"""Of the training split, one sample at least."""


@dataclass(kw_only=True)
class Best:
    """The best look at the samples held out, so far.

    Attributes:
        loss: their mean loss then; infinite before the first look.
        step: optimiser steps done then.
        looks_since: looks after it, none of them better.
        weights: what is trained and buffers, by name, as they were then: on the host, of rank 0; empty on the others.
    """

    loss: float = math.inf
    step: int = 0
    looks_since: int = 0
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def is_beaten_by(self, loss: float, step: int) -> bool:
        """Take note of a look; whether it is the best, whose weights are then kept."""
        if loss < self.loss:
            self.loss, self.step, self.looks_since = loss, step, 0
            return True
        self.looks_since += 1
        return False


def held_out(training: Training, samples: int) -> int:
    """How many of ``samples`` samples are not trained on.

    Raises:
        JobError: one sample cannot be both.
    """
    if training.early_stopping_patience is None:
        return 0
    if samples == 1:
        raise JobError(
            "early stopping holds out a part of the training split, and that has one sample; "
            "choose another dataset, or remove training.early_stopping_patience."
        )
    return math.ceil(HELD_OUT_SHARE * samples)


def split(training: Training, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices to train on, and indices held out, each in rising order; all of them to train on without early stopping.

    Raises:
        JobError: as ``held_out`` does.
    """
    out = held_out(training, samples)
    if out == 0:
        return torch.arange(samples), torch.arange(0)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return order[out:].sort().values, order[:out].sort().values


def is_look(training: Training, step: int, *, steps: int, steps_an_epoch: int) -> bool:
    """Whether what is held out is looked at after that step: now and then, and at the end."""
    every = steps_an_epoch if training.eval_steps is None else training.eval_steps
    return training.early_stopping_patience is not None and (step % every == 0 or step == steps)


def is_over(training: Training, best: Best) -> bool:
    """Whether it has not become better for as long as the user waits."""
    return training.early_stopping_patience is not None and best.looks_since >= training.early_stopping_patience
