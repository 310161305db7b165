"""Image classifiers: pixels in, the likeliest label out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import ViTImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from workers.tasks.data import AnySplit, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.families.pixels import TINY_SIDE, is_made, processed, sizes_of
from workers.training.hub import image_processor_of, weights_with_head
from workers.training.load import build_base
from workers.training.models import ModelInfo


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The classifier with one output for each class of the task; a pretrained body may get a new head.

    Raises:
        JobError: it or its image processor cannot be built or loaded.
    """
    places: tuple[int, ...] | None = None
    processor: BaseImageProcessor | None
    if info.hub is not None:
        names = data.class_names or tuple(map(str, range(data.classes)))
        model, places = weights_with_head("image-classification", info.hub, names, seed=seed, **loading)
        processor = image_processor_of(info.hub, info.trust)
    else:
        model = build_base(info, seed=seed, classes=data.classes, more=sizes_of(info, data))
        processor = None if is_made(data.train.inputs) else _small_processor()
    return Base(model=model, examples=lambda split: ImageExamples(split, places, processor))


class ImageExamples:
    """Pictures and their labels.

    Args:
        split: of a task.
        places: the model's output for each class of the task; ``None``: it has those and no others.
        processor: the model's; ``None``: the pictures are what the model takes.
    """

    def __init__(
        self, split: AnySplit, places: tuple[int, ...] | None = None, processor: BaseImageProcessor | None = None
    ) -> None:
        self._inputs, self._processor = split.inputs, processor
        self._labels = torch.from_numpy(split.labels)
        self._places = None if places is None else torch.tensor(places)

    def __len__(self) -> int:
        return len(self._labels)

    def units(self, chosen: torch.Tensor) -> int:
        """One label for each picture."""
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Pixels, and the labels as targets."""
        labels = self._labels[chosen]
        targets = (labels if self._places is None else self._places[labels]).to(device)
        return Batch(inputs={"pixel_values": self._pixels(chosen, device)}, targets=targets)

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The likeliest label of each."""
        logits = model(pixel_values=self._pixels(chosen, device)).logits
        if self._places is not None:
            logits = logits[:, self._places.to(device)]
        return Answers(values=logits.argmax(dim=-1).tolist())

    def _pixels(self, chosen: torch.Tensor, device: torch.device) -> torch.Tensor:
        if self._processor is None:
            return torch.from_numpy(self._inputs[chosen.numpy()]).to(device)
        return processed(self._inputs, chosen, self._processor)["pixel_values"].to(device)


def _small_processor() -> BaseImageProcessor:
    """For a model that is built here: a square of ``TINY_SIDE``, in [-1, 1]."""
    size = {"height": TINY_SIDE, "width": TINY_SIDE}
    return ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
