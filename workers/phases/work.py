"""What every phase of a job works with: where it runs, its data and model, and what it keeps of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workers import metric_log
from workers.contract import JobSpec, Phase
from workers.leaving import Leaving
from workers.quality.scoring import Encoders
from workers.session import Session
from workers.tasks.data import TaskData
from workers.training import adapters
from workers.training.checkpoint import Checkpoint, Checkpoints
from workers.training.examples import Examples, Generation
from workers.training.families.base import Base
from workers.training.group import Group
from workers.training.models import ModelInfo
from workers.training.ranks import Ranks
from workers.training.steps import StepResult


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an attempt runs, and what it can go on from.

    Attributes:
        artifacts: the attempt's folder.
        checkpoints: those of its job.
        leaving: whether it was asked to leave.
        ranks: which process of the attempt this is.
    """

    artifacts: Path
    checkpoints: Checkpoints
    leaving: Leaving
    ranks: Ranks


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every phase of one job needs.

    Attributes:
        info: what is known of the model without loading it.
        base: the model as it is built or loaded, before anything is done with it.
        train: the split to fine-tune on, as the model takes it; ``None`` where nothing is trained.
        test: likewise the split that is scored, and that inference goes over.
        found: the checkpoint it goes on from; ``None``: it begins at the beginning.
        encoders: those of scores, for baseline and evaluate alike.
    """

    spec: JobSpec
    session: Session
    place: Place
    data: TaskData
    info: ModelInfo
    base: Base
    train: Examples | None
    test: Examples
    device: torch.device
    group: Group
    found: Checkpoint | None
    encoders: Encoders

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that works where one is enough."""
        return self.place.ranks.is_first

    def on_step(self, result: StepResult) -> None:
        """A step that counts."""
        self.session.step(
            step=result.step, steps=result.steps, samples=result.samples, loss=result.loss, tokens=result.tokens
        )
        if result.denoising_steps is not None:
            self.session.record(metric_log.DENOISING_STEPS, result.denoising_steps, step=result.step)
        if result.eval_loss is not None:
            self.session.record(metric_log.EVAL_LOSS, result.eval_loss, step=result.step)
        if result.generation is not None:
            self._record_generation(result.step, result.generation)

    def _record_generation(self, step: int, made: Generation) -> None:
        """Reading the prompts and writing the answers apart, each at its own end."""
        for seconds, tokens, value, count, at_ns in (
            (
                metric_log.PREFILL_SECONDS,
                metric_log.TOKENS_PREFILL,
                made.prefill_s,
                made.prefill_tokens,
                made.prefill_ended_ns,
            ),
            (metric_log.DECODE_SECONDS, metric_log.TOKENS_DECODE, made.decode_s, made.decode_tokens, made.ended_ns),
        ):
            self.session.record(seconds, value, step=step, time_ns=at_ns)
            self.session.record(tokens, count, step=step, time_ns=at_ns)

    def on_warm_step(self, result: StepResult) -> None:  # noqa: ARG002 - what predict calls
        """A step that only warms up: it takes its time and is not counted."""
        self.session.warm()

    def record_parameters(self, model: nn.Module) -> None:
        """How many there are, and how many of them are trained."""
        if self.is_first:
            count = adapters.count_parameters(model)
            self.session.record(metric_log.TRAINABLE_PARAMETERS, count.trainable)
            self.session.record(metric_log.TOTAL_PARAMETERS, count.total)

    def record_flops(self, phase: Phase, by_format: Mapping[str, float]) -> None:
        """This rank's operations of a phase, by the format of their numbers."""
        self.session.record(metric_log.FLOPS, sum(by_format.values()), phase=phase)
        for name, count in by_format.items():
            self.session.record(f"{metric_log.FLOPS_PREFIX}{name}", count, phase=phase)
