"""Text-to-image models: noise becomes a picture of the prompt, in steps. The door of diffusers.

They answer and are not trained here: no score says how good a picture is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedModel

from workers.errors import JobError
from workers.tasks.data import Prompts, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.families.tokenizing import tokenizer_for
from workers.training.hub import UNREADABLE, not_had
from workers.training.load import drawn_from
from workers.training.models import ModelInfo

KEPT = 4
"""Pictures of so many first prompts are handed back, to be looked at; a thousand of them would fill the memory."""


class Painter(nn.Module):
    """A pipeline as one module: its networks are counted, moved and frozen together."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401 - diffusers has a class for each kind
        super().__init__()
        self.pipeline = pipeline
        self.networks = nn.ModuleDict(
            {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        )


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The pipeline, with the sizes and steps that are its own default.

    Raises:
        JobError: diffusers is not installed; or the model cannot be built or loaded, or is to be quantised.
    """
    if "quantization_config" in loading:
        raise JobError("a text-to-image model is of several networks, which are not quantised; set quantization: none.")
    try:
        import diffusers  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise JobError(
            "image generation needs the package diffusers; pip install 'wattledger[diffusion]' on this node."
        ) from error
    diffusers.utils.logging.set_verbosity_error()
    pipeline = _small(diffusers, info, data, seed) if info.hub is None else _loaded(diffusers, info.hub)
    pipeline.set_progress_bar_config(disable=True)
    model = cast("PreTrainedModel", Painter(pipeline).requires_grad_(False))
    steps = info.config.get("num_inference_steps")
    return Base(model=model, examples=lambda split: PromptExamples(split, seed=seed, steps=cast("int | None", steps)))


class PromptExamples:
    """Prompts of pictures, each with noise of its own to begin with, whatever it is batched with.

    Args:
        split: prompts; a model's tokenizer cuts them (CLIP's: after 77 tokens).
        seed: the job's, from which the noise follows.
        steps: of a picture; ``None``: as many as the pipeline says.
    """

    def __init__(self, split: Prompts, *, seed: int, steps: int | None) -> None:
        self._prompts, self._seed = split.inputs, seed
        self._how = {} if steps is None else {"num_inference_steps": steps}

    def __len__(self) -> int:
        return len(self._prompts)

    def units(self, chosen: torch.Tensor) -> int:
        """A picture each."""
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:  # noqa: ARG002 - as Examples has it
        """There is none.

        Raises:
            JobError: always.
        """
        raise JobError("text-to-image models are not trained here; run them as kind: inference.")

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:  # noqa: ARG002 - it is the model's
        """``(height, width, 3)`` uint8 of each of the first ``KEPT`` prompts, ``None`` of the others."""
        places, pipeline = chosen.tolist(), cast("Painter", model).pipeline
        made = pipeline(
            prompt=[self._prompts[place] for place in places],
            # On the CPU, so that the noise is the same wherever the picture is made.
            generator=[torch.Generator().manual_seed((self._seed << 32) + place) for place in places],
            output_type="np",
            **self._how,
        ).images
        pictures = [
            (image * 255).round().astype("uint8") if place < KEPT else None
            for place, image in zip(places, made, strict=True)
        ]
        return Answers(values=pictures, denoising_steps=getattr(pipeline, "num_timesteps", None))


def _loaded(diffusers: Any, name: str) -> Any:  # noqa: ANN401 - as Painter takes it
    """Safetensors alone, and no pipeline that comes with the model as code."""
    try:
        return diffusers.AutoPipelineForText2Image.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except UNREADABLE as error:
        raise not_had(name, error) from error


def _small(diffusers: Any, info: ModelInfo, data: TaskData, seed: int) -> Any:  # noqa: ANN401 - as Painter takes it
    """Stable Diffusion's parts with random weights that follow from ``seed`` alone."""
    parts = cast("Mapping[str, Mapping[str, Any]]", info.config)
    tokenizer = tokenizer_for(info, data, ends=True)
    tokenizer.model_max_length = parts["text_encoder"]["max_position_embeddings"]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = CLIPTextConfig(vocab_size=len(tokenizer), bos_token_id=None, **ids, **parts["text_encoder"])
    with drawn_from(seed):
        return diffusers.StableDiffusionPipeline(
            vae=diffusers.AutoencoderKL(**parts["vae"]),
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=diffusers.UNet2DConditionModel(**parts["unet"]),
            scheduler=diffusers.DDIMScheduler(**parts["scheduler"]),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
