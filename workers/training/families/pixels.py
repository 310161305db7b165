"""Pictures as the families that look at them take them: image processors, and what tiny models must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor

from workers.tasks.data import TaskData
from workers.training.models import ModelInfo

TINY_SIDE = 32
"""Pixels to which a model that is built here has pictures of the hub made: those of CIFAR stay as they are."""


def is_made(inputs: object) -> bool:
    """Whether pictures are arrays in [-1, 1] already, as tasks make them, and no files of any size."""
    return isinstance(inputs, np.ndarray)


def sizes_of(info: ModelInfo, data: TaskData) -> dict[str, object]:
    """What a configuration must know of the data's pictures: channels, the side in pixels, and that of a patch.

    A patch keeps its share of the picture, so that a model of the registry costs about the same on any.
    """
    inputs = data.train.inputs
    channels, side = (inputs.shape[1], inputs.shape[-1]) if is_made(inputs) else (3, TINY_SIDE)
    sizes: dict[str, object] = {"num_channels": channels}
    known: Any = info.config.get("image_size")
    if known is not None:
        sizes["image_size"] = [side, side] if isinstance(known, list) else side
    if "patch_size" in info.config:
        patch: Any = info.config["patch_size"]
        sizes["patch_size"] = max(1, patch * side // (known[0] if isinstance(known, list) else known))
    return sizes


def rgb(picture: Any) -> Any:  # noqa: ANN401 - a PIL image or an array
    """A picture in the form every processor takes: a PIL image of three colours, or ``(h, w, 3)`` uint8."""
    if hasattr(picture, "convert"):
        return picture.convert("RGB")
    levels = np.rint((np.asarray(picture) + 1.0) * 127.5).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(levels.transpose(1, 2, 0), (*levels.shape[1:], 3))


def processed(inputs: Sequence[Any], chosen: torch.Tensor, processor: BaseImageProcessor) -> dict[str, torch.Tensor]:
    """The chosen pictures, read now and forgotten after, as the processor gives them to its model.

    Raises:
        JobError: one of them cannot be read.
    """
    pictures = [rgb(inputs[place]) for place in chosen.tolist()]
    found = processor(pictures, return_tensors="pt", input_data_format="channels_last")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
