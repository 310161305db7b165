"""A training while it runs: what a checkpoint holds, and who comes between its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from workers.training.engine import Engine, tensors_of
from workers.training.stopping import Best


@dataclass(kw_only=True)
class Run:
    """A training as far as it is: what a checkpoint holds.

    Attributes:
        model: as it is saved, whatever wraps it while it trains.
        engine: what trains it, and has it whole.
        step: steps done, of ``steps``.
        best: the best look at what is held out.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    engine: Engine
    device: torch.device
    steps: int
    step: int = 0
    best: Best = field(default_factory=Best)

    def kept_names(self) -> tuple[list[str], list[str]]:
        """Names of what training changes (trained weights, and buffers), and of the weights that are frozen."""
        frozen = [name for name, parameter in self.model.named_parameters() if not parameter.requires_grad]
        return [name for name in tensors_of(self.model) if name not in set(frozen)], frozen


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
