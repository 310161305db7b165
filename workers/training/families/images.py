"""Image classifiers: pixels in, the likeliest label out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from workers.errors import JobError
from workers.tasks.data import Images, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.load import build_base
from workers.training.models import ModelInfo


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The classifier with one output for each class of the task.

    Raises:
        JobError: it cannot be built; or it is one of the hub, whose preprocessing no image task here has yet.
    """
    del loading
    if info.hub is not None:
        raise JobError(
            f"image classification takes models of the registry so far, not {info.hub}; name tiny/vit or tiny/convnext."
        )
    return Base(model=build_base(info, seed=seed, classes=data.classes), examples=ImageExamples)


class ImageExamples:
    """Images and their labels, as arrays of the task."""

    def __init__(self, split: Images) -> None:
        self._inputs, self._labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)

    def __len__(self) -> int:
        return len(self._labels)

    def units(self, chosen: torch.Tensor) -> int:
        """One label for each image."""
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Pixels, and the labels as targets."""
        pixels = self._inputs[chosen].to(device)
        return Batch(inputs={"pixel_values": pixels}, targets=self._labels[chosen].to(device))

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The likeliest label of each."""
        logits = model(pixel_values=self._inputs[chosen].to(device)).logits
        return Answers(values=logits.argmax(dim=-1).tolist())
