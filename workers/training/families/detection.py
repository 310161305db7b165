"""Object detectors: pixels in, boxes with a class and a confidence out; the loss is transformers' own, by matching."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, YolosImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from workers.errors import JobError
from workers.tasks.data import AnySplit, Boxes, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.families.pixels import TINY_SIDE, is_made, rgb, sizes_of
from workers.training.hub import image_processor_of, weights_with_head
from workers.training.load import build_base
from workers.training.models import ModelInfo

LEAST_CONFIDENCE = 0.01
"""Boxes the model is less sure of are not kept: they move no mean average precision, and a picture has a hundred."""


@dataclass(frozen=True, kw_only=True)
class DetectionBatch(Batch):
    """Pictures whose objects are among the model's inputs, since its loss is taken inside it."""

    def loss(self, outputs: Any) -> torch.Tensor:  # noqa: ANN401 - transformers has an output class for each head
        """The matched loss of classes and boxes, as the model's configuration weighs them."""
        loss: torch.Tensor = outputs.loss
        return loss


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The detector with an output for each class of the task.

    Raises:
        JobError: it or its image processor cannot be built or loaded; or the classes have no names.
    """
    names = data.class_names
    if info.hub is None:
        model = build_base(info, seed=seed, classes=data.classes, more=sizes_of(info, data))
        _tell_apart(model, seed)
        return _base(model, _small_processor(data), tuple(range(data.classes)))
    if not names:
        raise JobError(f"the data set names no classes, which {info.hub} needs; choose another dataset.")
    model, places = weights_with_head("object-detection", info.hub, names, seed=seed, **loading)
    processor = image_processor_of(info.hub, info.trust)
    if not hasattr(processor, "post_process_object_detection"):
        raise JobError(f"the image processor of {info.hub} makes no boxes; choose a model of object detection.")
    return _base(model, processor, places)


def _tell_apart(model: PreTrainedModel, seed: int) -> None:
    """Draw the places and detection tokens of YOLOS, which begin at zero, all alike.

    A checkpoint brings them; to learn them from zero takes longer than all the rest.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        if name.endswith(("position_embeddings", "detection_tokens")) and not weights.any():
            nn.init.normal_(weights, std=0.2, generator=generator)


def _base(model: PreTrainedModel, processor: BaseImageProcessor, places: tuple[int, ...]) -> Base:
    taken = frozenset(inspect.signature(type(model).forward).parameters)
    return Base(model=model, examples=lambda split: DetectionExamples(split, processor, places, taken))


class DetectionExamples:
    """Pictures and the boxes in them.

    Args:
        split: of a task.
        processor: the model's.
        places: the model's number of each class of the task.
        taken: what the model takes; some have no use for the mask of what is padding.
    """

    def __init__(
        self, split: AnySplit, processor: BaseImageProcessor, places: tuple[int, ...], taken: frozenset[str]
    ) -> None:
        self._inputs, self._labels, self._processor = split.inputs, split.labels, processor
        self._places, self._taken = torch.tensor(places), taken
        self._classes = {place: number for number, place in enumerate(places)}

    def __len__(self) -> int:
        return len(self._labels)

    def units(self, chosen: torch.Tensor) -> int:
        """One for each picture.

        Not exact: the loss is a mean over objects for boxes, and over queries for classes. Ranks that share a batch
        come close to what one process finds, and meet it where pictures have as many objects.
        """
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Pixels, and objects as the model's loss takes them: class, and middle and size as shares of the picture."""
        pictures = self._pictures(chosen)
        labels = [
            self._objects(self._labels[place], _size(picture), device)
            for place, picture in zip(chosen.tolist(), pictures, strict=True)
        ]
        return DetectionBatch(inputs={**self._processed(pictures, device), "labels": labels}, targets=None)

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The boxes found in each, in its own pixels; the likeliest first."""
        pictures = self._pictures(chosen)
        found = self._processor.post_process_object_detection(  # type: ignore[attr-defined] # detectors' have it
            model(**self._processed(pictures, device)),
            threshold=LEAST_CONFIDENCE,
            target_sizes=[_size(picture) for picture in pictures],
        )
        return Answers(values=[self._boxes(one) for one in found])

    def _pictures(self, chosen: torch.Tensor) -> list[Any]:
        """Read now and forgotten after.

        Raises:
            JobError: one of them cannot be read.
        """
        return [rgb(self._inputs[place]) for place in chosen.tolist()]

    def _processed(self, pictures: list[Any], device: torch.device) -> dict[str, torch.Tensor]:
        found = self._processor(pictures, return_tensors="pt", input_data_format="channels_last")
        return {name: value.to(device) for name, value in found.items() if name in self._taken}

    def _objects(self, boxes: Boxes, size: tuple[int, int], device: torch.device) -> dict[str, torch.Tensor]:
        """Middle and size as shares of the picture, without what pads it in a batch: so DETR and YOLOS were trained.

        Not by the processor: its shares are of the padded picture, which its own way back to pixels does not undo.
        """
        height, width = size
        corners = torch.from_numpy(boxes.corners) / torch.tensor([width, height, width, height])
        corners = corners.clamp(0.0, 1.0).float()
        middles, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        seen = (sizes > 0).all(dim=1)
        labels = self._places[torch.from_numpy(boxes.labels)]
        return {
            "class_labels": labels[seen].to(device),
            "boxes": torch.cat([middles, sizes], dim=1)[seen].to(device),
        }

    def _boxes(self, found: Mapping[str, torch.Tensor]) -> Boxes:
        """As scores take them; classes that the task does not have are left out."""
        order = found["scores"].argsort(descending=True, stable=True)
        kept = [place for place in order.tolist() if int(found["labels"][place]) in self._classes]
        return Boxes(
            corners=found["boxes"][kept].double().cpu().numpy().reshape(-1, 4),
            labels=np.asarray([self._classes[int(found["labels"][place])] for place in kept], dtype=np.int64),
            confidences=found["scores"][kept].double().cpu().numpy(),
        )


def _size(picture: Any) -> tuple[int, int]:  # noqa: ANN401 - a PIL image or an array
    """Height and width in pixels of a picture that ``rgb`` made."""
    width, height = picture.size if hasattr(picture, "convert") else picture.shape[1::-1]
    return int(height), int(width)


def _small_processor(data: TaskData) -> BaseImageProcessor:
    """For a model that is built here: pictures that were made as they are, others a square of ``TINY_SIDE``."""
    size = {"height": TINY_SIDE, "width": TINY_SIDE}
    return YolosImageProcessorPil(
        do_resize=not is_made(data.train.inputs), size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
