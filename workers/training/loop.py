"""The training loop and its inverse: ``fit`` changes weights, ``predict`` reads answers.

Both call ``on_step`` after every step, in the caller's thread, which is where an attempt logs, reports progress and
paces itself. The loss is read from the device at every step, so a step has ended when ``on_step`` is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.contract import Training
from workers.errors import JobError
from workers.tasks.data import Split

WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises to its value, before a cosine takes it to zero.

A transformer from random weights trains unevenly over seeds without it.
"""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step was.

    Attributes:
        step: from 1.
        steps: how many there will be.
        samples: samples in this step.
        loss: mean loss of the step before its update; ``None`` where there is none (prediction).
    """

    step: int
    steps: int
    samples: int
    loss: float | None


OnStep = Callable[[StepResult], None]


def steps_of(training: Training, samples: int) -> int:
    """Optimiser steps of a fine-tune on ``samples`` samples; a last short batch of an epoch counts as one."""
    steps = training.epochs * math.ceil(samples / training.batch_size)
    return steps if training.max_steps is None else min(steps, training.max_steps)


def fit(
    model: nn.Module, split: Split, training: Training, *, seed: int, device: torch.device, on_step: OnStep
) -> None:
    """Train the parameters that require gradients, in place, with AdamW under a warmed-up cosine.

    The order of samples follows from ``seed`` alone. Dropout, where a model has any, draws from torch's global
    generator, which ``prepare`` seeds. The model is left on ``device``, in the train or eval mode it came in.

    Raises:
        JobError: nothing to train (no samples, or every parameter frozen), a loss that is not finite, or no memory.
    """
    model.to(device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = steps_of(training, len(split))
    if not trainable:
        raise JobError("every parameter is frozen, so there is nothing to train; set adapter.method to lora or full.")
    if steps == 0:
        raise JobError("the training split has no samples; choose another dataset.")
    optimizer = torch.optim.AdamW(trainable, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _learning_rate_share(done, steps))
    inputs, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    batches = _batches(len(split), training.batch_size, seed)
    with _mode(model, training=True), _memory(training.batch_size):
        for step in range(1, steps + 1):
            chosen = next(batches)
            logits = model(pixel_values=inputs[chosen].to(device)).logits
            loss = nn.functional.cross_entropy(logits, labels[chosen].to(device))
            value = loss.item()
            if not math.isfinite(value):
                raise JobError(
                    f"the loss became {value} at step {step} of {steps}; "
                    f"lower training.learning_rate (now {training.learning_rate:g})."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            on_step(StepResult(step=step, steps=steps, samples=len(chosen), loss=value))


def predict(
    model: nn.Module, inputs: NDArray[np.float32], *, batch_size: int, device: torch.device, on_step: OnStep
) -> NDArray[np.int64]:
    """The likeliest label of each input, ``(n,)``, in order; the model is left in the mode it came in.

    Raises:
        JobError: the device's memory does not hold a batch.
    """
    model.to(device)
    steps = math.ceil(len(inputs) / batch_size)
    answers = np.empty(len(inputs), dtype=np.int64)
    with _mode(model, training=False), _memory(batch_size), torch.inference_mode():
        for step in range(1, steps + 1):
            batch = slice((step - 1) * batch_size, step * batch_size)
            logits = model(pixel_values=torch.from_numpy(inputs[batch]).to(device)).logits
            answers[batch] = logits.argmax(dim=-1).cpu().numpy()
            on_step(StepResult(step=step, steps=steps, samples=len(inputs[batch]), loss=None))
    return answers


def _learning_rate_share(done: int, steps: int) -> float:
    """The learning rate after ``done`` of ``steps`` steps, as a share of its peak."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if done < warmup:
        return (done + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, steps - warmup)))


def _batches(samples: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of batches for ever, each epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from (order[first : first + batch_size] for first in range(0, samples, batch_size))


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or eval mode inside, the mode before afterwards."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def _memory(batch_size: int) -> Iterator[None]:
    """A device that is out of memory, as a sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JobError(
            f"the device ran out of memory at a batch size of {batch_size}; lower the batch size, "
            "choose a smaller model, or name accelerators with more memory in resources.accelerators."
        ) from error
