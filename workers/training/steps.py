"""The steps of a training, or of a prediction: how many there are, and what one was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from workers.contract import Training
from workers.training.examples import Generation
from workers.training.stopping import held_out


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step was.

    Attributes:
        step: from 1.
        steps: how many there will be.
        samples: samples in this step.
        loss: mean loss of the step before its update; ``None`` where there is none (prediction).
        tokens: read, and written, in this step, padding left out; ``None`` where there are none.
        generation: how the answers were written, where they were generated.
        denoising_steps: of each picture, where pictures are made of noise.
        eval_loss: mean loss of what is held out, after its update; ``None`` where it was not looked at.
    """

    step: int
    steps: int
    samples: int
    loss: float | None
    tokens: int | None = None
    generation: Generation | None = None
    denoising_steps: int | None = None
    eval_loss: float | None = None

    def among(self, before: int, repeats: int) -> StepResult:
        """The same step where the whole is done ``repeats`` times, of which ``before`` are done."""
        return replace(self, step=before * self.steps + self.step, steps=repeats * self.steps)


OnStep = Callable[[StepResult], None]


def steps_of(training: Training, samples: int) -> int:
    """Optimiser steps of a fine-tune on a split of ``samples``, early stopping aside; a last short batch counts as one.

    Raises:
        JobError: there are too few samples to hold any out.
    """
    steps = training.epochs * steps_an_epoch(training, samples - held_out(training, samples))
    return steps if training.max_steps is None else min(steps, training.max_steps)


def steps_an_epoch(training: Training, samples: int) -> int:
    """Optimiser steps of one pass over so many samples; a last short batch counts as one."""
    return math.ceil(samples / training.batch_size)
