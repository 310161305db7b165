"""What a family makes of a model and a task's data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedModel

from workers.tasks.data import AnySplit
from workers.training.examples import Examples

Model = PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Base:
    """A model before it is adapted, and how it takes a split.

    Attributes:
        model: with the weights it begins with, on the CPU.
        examples: a split as the model takes it; tokenizing happens here, once.
    """

    model: PreTrainedModel
    examples: Callable[[AnySplit], Examples]
