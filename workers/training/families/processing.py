"""Models that read pictures and text, and their processors: the hub's, or small ones that are built here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.processing_blip import BlipProcessor
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import MllamaProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from workers.errors import JobError
from workers.tasks.data import PicturePrompt, TaskData
from workers.training.families.tokenizing import END, tokenizer_for
from workers.training.hub import processor_of, weights_of, without_video
from workers.training.load import build_base
from workers.training.models import ModelInfo

BEGIN = "<s>"
IMAGE_TOKENS: Mapping[str, tuple[str, ...]] = {
    "qwen2_vl": ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    "mllama": ("<|image|>",),
    "blip": (),
}
"""What stands for a picture in a prompt, as each architecture's own processor has it."""


def processor_for(info: ModelInfo, data: TaskData) -> ProcessorMixin:
    """The model's own processor, or for one that is built here a small one that fits its configuration.

    Raises:
        JobError: the hub's cannot be had; or no small one is known of the architecture.
    """
    if info.hub is not None:
        return processor_of(info.hub, info.trust)
    architecture = str(info.architecture)
    if architecture not in IMAGE_TOKENS:
        raise JobError(f"no small processor is known for {architecture}; choose one of {', '.join(IMAGE_TOKENS)}.")
    tokenizer = tokenizer_for(info, data, ends=False, more=(BEGIN, *IMAGE_TOKENS[architecture]))
    tokenizer.add_special_tokens({"bos_token": BEGIN, "sep_token": END})
    return _small(architecture, tokenizer, cast("Mapping[str, Any]", info.config["vision_config"]))


def model_for(
    family: str, info: ModelInfo, processor: ProcessorMixin, *, seed: int, loading: Mapping[str, object]
) -> PreTrainedModel:
    """The model of the hub, or one that is built to fit its small processor.

    Raises:
        JobError: it cannot be built or loaded.
    """
    if info.hub is not None:
        return weights_of(family, info.hub, **loading)
    found = _ids_of(processor, str(info.architecture))
    text = cast("Mapping[str, object]", info.config["text_config"])
    config = {**info.config, **found[""], "text_config": {**text, **found["text_config"]}}
    return build_base(replace(info, config=config), seed=seed)


def tokenizer_in(processor: ProcessorMixin) -> PreTrainedTokenizerBase:
    """The processor's part for text."""
    return cast("PreTrainedTokenizerBase", cast("Any", processor).tokenizer)


def learned(label: object) -> str:
    """The answer that is learned: of several the first."""
    return str(label[0] if isinstance(label, tuple) else label)


def rgb_of(asked: Sequence[PicturePrompt]) -> list[Any]:
    """The pictures as image processors take them: PIL images of three channels, or ``(height, width, 3)`` uint8."""
    return [_rgb(one.picture) for one in asked]


def _ids_of(processor: ProcessorMixin, architecture: str) -> Mapping[str, Mapping[str, object]]:
    """What a configuration must know of a small processor: by its section, or ``""`` for the whole."""
    tokenizer = tokenizer_in(processor)
    ids = [int(tokenizer.get_vocab()[token]) for token in IMAGE_TOKENS[architecture]]
    names = {"qwen2_vl": ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    text = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if architecture == "blip":
        text["sep_token_id"] = tokenizer.sep_token_id
    return {"": dict(zip(names.get(architecture, ("image_token_index",)), ids, strict=False)), "text_config": text}


def _rgb(picture: Any) -> Any:  # noqa: ANN401 - a PIL image, whose door is elsewhere, or an array
    if isinstance(picture, np.ndarray):
        return np.rint((picture.transpose(1, 2, 0) + 1.0) * 127.5).astype(np.uint8)
    return picture.convert("RGB")


def _small(architecture: str, tokenizer: PreTrainedTokenizerBase, vision: Mapping[str, Any]) -> ProcessorMixin:
    """Pictures are drawn in the size the model sees, so that none is scaled."""
    half: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if architecture == "qwen2_vl":
        images = Qwen2VLImageProcessorPil(
            patch_size=vision["patch_size"],
            merge_size=vision["spatial_merge_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            size={"shortest_edge": 64, "longest_edge": 4096},
            **half,
        )
        return without_video(Qwen2VLProcessor)(images, tokenizer, None)
    sides = {"height": int(vision["image_size"]), "width": int(vision["image_size"])}
    if architecture == "mllama":
        tiled = MllamaImageProcessorPil(size=sides, max_image_tiles=vision["max_num_tiles"], **half)
        return MllamaProcessor(tiled, tokenizer)  # type: ignore[no-untyped-call]
    return BlipProcessor(BlipImageProcessorPil(size=sides, **half), tokenizer)  # type: ignore[no-untyped-call]
