"""The training loop and its inverse: ``fit`` changes weights, ``predict`` reads answers.

Both call ``on_step`` after every step, in the caller's thread, which is where an attempt logs, reports progress and
paces itself. The loss is read from the device at every step, so a step has ended when ``on_step`` is called. A
``Keeper`` comes between steps: checkpoints, and leaving. How a loss becomes new weights is the ``Engine``'s.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workers.contract import Training
from workers.errors import JobError
from workers.training.engine import engine_for, tensors_of
from workers.training.examples import Batch, Examples
from workers.training.group import Group
from workers.training.memory import named_memory
from workers.training.modes import checkpointed, mode, put
from workers.training.precision import autocast, check_bf16
from workers.training.ranks import Ranks
from workers.training.run import Keeper, NoKeeper, Run
from workers.training.steps import OnStep, StepResult, steps_an_epoch, steps_of
from workers.training.stopping import Best, is_look, is_over, split

WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises to its value, before a cosine takes it to zero.

A transformer from random weights trains unevenly over seeds without it.
"""


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

    The order of samples follows from ``seed`` alone. ``group`` splits each batch over its ranks, and
    ``training.gradient_accumulation_steps`` each rank's part again, so that the result is that of one process and one
    pass up to the order of float sums; only batch norms that are trained see such a part alone, and rank 0's averages
    are kept. Dropout, where a model has any, draws from torch's global generator, which ``prepare`` seeds: each rank's
    masks are its own. The model is left on ``device``, in the train or eval mode it came in; with early stopping it has
    the best weights, not the last. Rank 0's is the result, whatever the others' hold.

    Raises:
        JobError: nothing to train (no samples, or every parameter frozen), a loss that is not finite, no memory, or a
            model or device that cannot do what ``training`` asks for.
        PeerLostError: another rank has ended.
    """
    group, keeper = group or Group(Ranks()), keeper or NoKeeper()
    if training.bf16:
        check_bf16(device)
    with mode(model, training=True), named_memory(training.batch_size), checkpointed(model, training):
        run = _begin(model, training, len(examples), device, group)
        fitting = _Fitting(run=run, examples=examples, training=training, group=group)
        keeper.begin(run)
        run.engine.begin()
        used, out = split(training, len(examples), seed)
        for chosen in itertools.islice(_batches(used, training.batch_size, seed), run.step, run.steps):
            if is_over(training, run.best):
                break
            loss, samples, tokens = fitting.step(chosen)
            looks = is_look(training, run.step, steps=run.steps, steps_an_epoch=steps_an_epoch(training, len(used)))
            eval_loss = fitting.look(out) if looks else None
            on_step(
                StepResult(
                    step=run.step, steps=run.steps, samples=samples, loss=loss, tokens=tokens, eval_loss=eval_loss
                )
            )
            keeper.after_step(run)
        run.engine.end()
        _put_back(model, run.best)


@dataclass(frozen=True, kw_only=True)
class _Fitting:
    """The two things done with a batch while training: a step, and a look at what is held out."""

    run: Run
    examples: Examples
    training: Training
    group: Group

    def step(self, chosen: torch.Tensor) -> tuple[float, int, int | None]:
        """One optimiser step on a batch: its loss, and samples and tokens of this rank."""
        run, total, samples, tokens = self.run, torch.zeros((), device=self.run.device), 0, None
        parts = self.group.parts(chosen, self.training.gradient_accumulation_steps)
        for place, (part, counts) in enumerate(parts, start=1):
            weight = self.examples.units(part) / self.examples.units(chosen) if counts else 0.0
            batch = self.examples.batch(part, run.device)
            with run.engine.micro_batch(is_last=place == len(parts)):
                loss = self._loss(batch) * weight
                # The ranks' gradients are averaged, and it is their sum that is the batch's.
                run.engine.backward(loss * self.group.ranks.world_size)
            total += loss.detach()
            if counts:
                samples += len(part)
                tokens = tokens if batch.tokens is None else (tokens or 0) + batch.tokens
        value = self.group.sum(total)
        _check_loss(value, run, self.training)
        run.engine.step()
        run.schedule.step()
        run.step += 1
        return value, samples, tokens

    def look(self, out: torch.Tensor) -> float:
        """The mean loss of what is held out; the weights are kept where it is the best."""
        run, total = self.run, torch.zeros((), device=self.run.device)
        size = math.ceil(self.training.batch_size / self.training.gradient_accumulation_steps)
        with mode(run.model, training=False), torch.no_grad():
            for chosen in torch.split(out, size):
                ((part, counts),) = self.group.parts(chosen)
                loss = self._loss(self.examples.batch(part, run.device))
                total += loss * (self.examples.units(part) if counts else 0)
        value = self.group.sum(total) / self.examples.units(out)
        if run.best.is_beaten_by(value, run.step):
            changed, _ = run.kept_names()
            run.best.weights = run.engine.tensors(changed)
        return value

    def _loss(self, batch: Batch) -> torch.Tensor:
        with self.group.peers(), autocast(self.run.device, bf16=self.training.bf16):
            return batch.loss(self.run.engine(**batch.inputs))


def _begin(model: nn.Module, training: Training, samples: int, device: torch.device, group: Group) -> Run:
    put(model, device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = steps_of(training, samples)
    if not trainable:
        raise JobError("every parameter is frozen, so there is nothing to train; set adapter.method to lora or full.")
    if steps == 0:
        raise JobError("the training split has no samples; choose another dataset.")
    optimizer = torch.optim.AdamW(trainable, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _learning_rate_share(done, steps))
    engine = engine_for(model, optimizer, training, group, device)
    return Run(model=model, optimizer=optimizer, schedule=schedule, engine=engine, device=device, steps=steps)


def _put_back(model: nn.Module, best: Best) -> None:
    """The weights of the best look, on the rank that kept them."""
    tensors = tensors_of(model)
    with torch.no_grad():
        for name, value in best.weights.items():
            tensors[name].copy_(value)


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
    with mode(model, training=False), named_memory(batch_size):
        # Before inference mode: weights that are moved inside it could never be trained.
        put(model, device)
        with torch.inference_mode():
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


def _learning_rate_share(done: int, steps: int) -> float:
    """The learning rate after ``done`` of ``steps`` steps, as a share of its peak."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if done < warmup:
        return (done + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, steps - warmup)))


def _batches(places: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of indices for ever, each epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = places[torch.randperm(len(places), generator=generator)]
        yield from torch.split(order, batch_size)
