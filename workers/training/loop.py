"""The training loop and its inverse: ``fit`` changes weights, ``predict`` reads answers.

Both call ``on_step`` after every step, in the caller's thread, which is where an attempt logs, reports progress and
paces itself. The loss is read from the device at every step, so a step has ended when ``on_step`` is called. A
``Keeper`` comes between steps: checkpoints, and leaving.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from workers.contract import Training
from workers.errors import JobError
from workers.training.examples import Examples, Generation
from workers.training.group import Group
from workers.training.memory import named_memory
from workers.training.ranks import Ranks

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
        tokens: read, and written, in this step, padding left out; ``None`` where there are none.
        generation: how the answers were written, where they were generated.
        denoising_steps: of each picture, where pictures are made of noise.
    """

    step: int
    steps: int
    samples: int
    loss: float | None
    tokens: int | None = None
    generation: Generation | None = None
    denoising_steps: int | None = None

    def among(self, before: int, repeats: int) -> StepResult:
        """The same step where the whole is done ``repeats`` times, of which ``before`` are done."""
        return replace(self, step=before * self.steps + self.step, steps=repeats * self.steps)


OnStep = Callable[[StepResult], None]


def steps_of(training: Training, samples: int) -> int:
    """Optimiser steps of a fine-tune on ``samples`` samples; a last short batch of an epoch counts as one."""
    steps = training.epochs * math.ceil(samples / training.batch_size)
    return steps if training.max_steps is None else min(steps, training.max_steps)


@dataclass(kw_only=True)
class Run:
    """A training as far as it is: what a checkpoint holds.

    Attributes:
        model: as it is saved, whatever wraps it while it trains.
        step: steps done, of ``steps``.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    device: torch.device
    steps: int
    step: int = 0


class Keeper(Protocol):
    """Looks after a training: where it begins, and what happens between two steps."""

    def begin(self, run: Run) -> None:
        """Before the first step; may put the run where an earlier one was."""
        ...

    def after_step(self, run: Run) -> None:
        """Between two steps, and after the last."""
        ...


class NoKeeper:
    """Begins at the beginning, and does nothing between steps."""

    def begin(self, run: Run) -> None:
        """Leave it as it is."""

    def after_step(self, run: Run) -> None:
        """Go on."""


def fit(
    model: nn.Module,
    examples: Examples,
    training: Training,
    *,
    seed: int,
    device: torch.device,
    on_step: OnStep,
    group: Group | None = None,
    keeper: Keeper | None = None,
) -> None:
    """Train the parameters that require gradients, in place, with AdamW under a warmed-up cosine.

    The order of samples follows from ``seed`` alone, and ``group`` splits each batch over its ranks, so that their
    result is that of one process up to the order of float sums; only batch norms that are trained see their rank's
    part alone, and rank 0's averages are kept. Dropout, where a model has any, draws from torch's
    global generator, which ``prepare`` seeds: each rank's masks are its own. The model is left on ``device``, in the
    train or eval mode it came in.

    Raises:
        JobError: nothing to train (no samples, or every parameter frozen), a loss that is not finite, or no memory.
        PeerLostError: another rank has ended.
    """
    group, keeper = group or Group(Ranks()), keeper or NoKeeper()
    with _mode(model, training=True), named_memory(training.batch_size):
        run = _begin(model, training, len(examples), device)
        keeper.begin(run)
        wrapped = group.wrap(model, device)
        for chosen in itertools.islice(_batches(len(examples), training.batch_size, seed), run.step, run.steps):
            part, share = group.part(chosen)
            weight = examples.units(part) / examples.units(chosen) if share else 0.0
            batch = examples.batch(part, device)
            with group.peers():
                loss = batch.loss(wrapped(**batch.inputs)) * weight
                value = group.sum(loss)
                _check_loss(value, run, training)
                run.optimizer.zero_grad()
                # The ranks' gradients are averaged, and it is their sum that is the batch's.
                (loss * group.ranks.world_size).backward()  # type: ignore[no-untyped-call]
            run.optimizer.step()
            run.schedule.step()
            run.step += 1
            samples, tokens = (len(part), batch.tokens) if share else (0, None)
            on_step(StepResult(step=run.step, steps=run.steps, samples=samples, loss=value, tokens=tokens))
            keeper.after_step(run)


def _begin(model: nn.Module, training: Training, samples: int, device: torch.device) -> Run:
    _put(model, device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = steps_of(training, samples)
    if not trainable:
        raise JobError("every parameter is frozen, so there is nothing to train; set adapter.method to lora or full.")
    if steps == 0:
        raise JobError("the training split has no samples; choose another dataset.")
    optimizer = torch.optim.AdamW(trainable, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _learning_rate_share(done, steps))
    return Run(model=model, optimizer=optimizer, schedule=schedule, device=device, steps=steps)


def _check_loss(value: float, run: Run, training: Training) -> None:
    if not math.isfinite(value):
        raise JobError(
            f"the loss became {value} at step {run.step + 1} of {run.steps}; "
            f"lower training.learning_rate (now {training.learning_rate:g})."
        )


def predict(
    model: nn.Module,
    examples: Examples,
    *,
    batch_size: int,
    device: torch.device,
    on_step: OnStep,
    count: int | None = None,
) -> list[Any]:
    """The answer to each example in order, as the task's scores take it; the model is left in the mode it came in.

    ``count`` answers are given, the examples over and over; ``None``: one for each.

    Raises:
        JobError: the device's memory does not hold a batch.
    """
    wanted = len(examples) if count is None else count
    order = torch.arange(wanted) % max(1, len(examples))
    steps = math.ceil(wanted / batch_size)
    values: list[Any] = []
    with _mode(model, training=False), named_memory(batch_size), torch.inference_mode():
        _put(model, device)
        for step, chosen in enumerate(torch.split(order, batch_size) if wanted else (), start=1):
            answers = examples.answers(model, chosen, device)
            values += answers.values
            on_step(
                StepResult(
                    step=step,
                    steps=steps,
                    samples=len(chosen),
                    loss=None,
                    tokens=answers.tokens,
                    generation=answers.generation,
                    denoising_steps=answers.denoising_steps,
                )
            )
    return values


def _put(model: nn.Module, device: torch.device) -> None:
    """Move the model, unless it is there: quantised weights refuse to be moved, even to where they are."""
    if any(parameter.device != device for parameter in model.parameters()):
        model.to(device)


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
    """Train or eval mode inside, the mode before afterwards.

    Batch norms that are frozen stay in eval mode: in train mode they would go on averaging what they see, and an
    adapter would fit a base that its saved file does not hold.
    """
    before = model.training
    model.train(training)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(weight.requires_grad for weight in module.parameters()):
            module.eval()
    try:
        yield
    finally:
        model.train(before)
