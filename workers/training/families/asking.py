"""Models that write, on tasks for which others have a head: asked in words, and their answers read back as labels."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from workers.tasks.data import AsText, TaskData
from workers.training.examples import Answers, Batch, Examples
from workers.training.families.base import Base


def put_as_text(data: TaskData, as_text: AsText) -> TaskData:
    """The task's data as a family that writes takes it: prompts, and texts that answer them."""
    return dataclasses.replace(
        data,
        source=None if data.source is None else as_text.pairs(data.source),
        train=as_text.pairs(data.train),
        test=as_text.pairs(data.test),
        longest_input=as_text.longest_input,
    )


def asked(base: Base, as_text: AsText) -> Base:
    """``base``, a model that writes, as one that takes the task's own splits and answers in the form of its labels."""
    return Base(model=base.model, examples=lambda split: _ReadBack(base.examples(as_text.pairs(split)), as_text))


class _ReadBack:
    """Examples whose written answers are read as labels."""

    def __init__(self, written: Examples, as_text: AsText) -> None:
        self._written, self._as_text = written, as_text

    def __len__(self) -> int:
        return len(self._written)

    def units(self, chosen: torch.Tensor) -> int:
        return self._written.units(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        return self._written.batch(chosen, device)

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        found = self._written.answers(model, chosen, device)
        return dataclasses.replace(found, values=[self._as_text.read(text) for text in found.values])
