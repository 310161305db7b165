"""Vision-language models: a picture and a prompt, and the text that answers; the loss is the answer's alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from workers.errors import JobError
from workers.tasks.data import PictureTexts, TaskData
from workers.training.examples import IGNORED, Answers, Batch
from workers.training.families import blip
from workers.training.families.base import Base
from workers.training.families.generation import generate
from workers.training.families.processing import learned, model_for, processor_for, rgb_of, tokenizer_in
from workers.training.families.tokenizing import padded
from workers.training.models import ModelInfo

DESCRIBE = "Describe this picture in one sentence."
"""What a chat model is asked where the data asks nothing."""


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The model and its processor.

    Raises:
        JobError: one of them cannot be built or loaded.
    """
    processor = processor_for(info, data)
    model = model_for("image-text-to-text", info, processor, seed=seed, loading=loading)
    if model.config.model_type == "blip":
        return Base(model=model, examples=lambda split: blip.CaptionExamples(split, processor, model, data))
    return Base(model=model, examples=lambda split: VisionLanguageExamples(split, processor, model, data))


class VisionLanguageExamples:
    """Pictures, prompts and answers. A picture is read and processed in the batch that needs it.

    Args:
        split: pictures with prompts, and texts.
        processor: the model's; a chat model's own frame is put around a prompt.
        model: before it is adapted.
        data: says how long an answer may be, in tokens, the one that ends it included.
    """

    def __init__(self, split: PictureTexts, processor: ProcessorMixin, model: PreTrainedModel, data: TaskData) -> None:
        self._inputs, self._processor, self._longest_answer = split.inputs, processor, data.longest_answer
        self._tokenizer = tokenizer_in(processor)
        self._limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._narrow = "logits_to_keep" in inspect.signature(model.forward).parameters
        end = [int(self._tokenizer.eos_token_id)]
        texts = [text if self._is_chat else f" {text}" for text in map(learned, split.labels)]
        ids = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        self._answers = [[*row[: data.longest_answer - 1], *end] for row in ids]

    @property
    def _is_chat(self) -> bool:
        return cast("Any", self._processor).chat_template is not None

    def __len__(self) -> int:
        return len(self._inputs)

    def units(self, chosen: torch.Tensor) -> int:
        """Tokens of the answers."""
        return sum(len(self._answers[place]) for place in chosen.tolist())

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Prompts, padded on the left, and answers, padded on the right; logits are made of the answers alone."""
        answers = [self._answers[place] for place in chosen.tolist()]
        read = self._read(chosen, more=max(map(len, answers)))
        kept = padded([[1] * len(answer) for answer in answers], 0)
        added = {
            "input_ids": padded(answers, int(self._tokenizer.pad_token_id)),
            "attention_mask": kept,
            "mm_token_type_ids": torch.zeros_like(kept),
            "token_type_ids": torch.zeros_like(kept),
        }
        joined = {name: torch.cat([read[name], rows], dim=1) for name, rows in added.items() if name in read}
        if "cross_attention_mask" in read:  # an answer sees what the end of its prompt saw
            seen = read["cross_attention_mask"]
            joined["cross_attention_mask"] = torch.cat([seen, seen[:, -1:].expand(-1, kept.shape[1], -1, -1)], dim=1)
        targets = padded([[*answer, IGNORED] for answer in answers], IGNORED)
        if not self._narrow:
            before = torch.full((len(answers), read["input_ids"].shape[1] - 1), IGNORED)
            targets = torch.cat([before, targets], dim=1)
        narrow = {"logits_to_keep": targets.shape[1]} if self._narrow else {}
        inputs = {name: value.to(device) for name, value in {**read, **joined}.items()}
        return Batch(
            inputs={**inputs, **narrow, "use_cache": False},
            targets=targets.to(device),
            tokens=int(joined["attention_mask"].sum()),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What the model writes after each prompt."""
        read = {name: value.to(device) for name, value in self._read(chosen, more=self._longest_answer).items()}
        return generate(model, read, self._tokenizer, longest=self._longest_answer, skip=read["input_ids"].shape[1])

    def _read(self, chosen: torch.Tensor, *, more: int) -> dict[str, torch.Tensor]:
        """What the processor makes of pictures and prompts; ``more`` tokens are to follow.

        Raises:
            JobError: the model cannot read so much.
        """
        asked = [self._inputs[place] for place in chosen.tolist()]
        read: dict[str, torch.Tensor] = dict(
            cast("Any", self._processor)(
                images=[[picture] for picture in rgb_of(asked)],
                text=[self._framed(one.prompt) for one in asked],
                padding=True,
                padding_side="left",
                add_special_tokens=not self._is_chat,
                return_tensors="pt",
            )
        )
        length = read["input_ids"].shape[1]
        if self._limit is not None and length + more > self._limit:
            raise JobError(
                f"a picture and its prompt are {length} tokens, and {more} more are to be written, but the model "
                f"reads {self._limit} at most. Choose a model that reads more, or a data set of shorter prompts."
            )
        return read

    def _framed(self, prompt: str) -> str:
        """As the model was trained to be asked."""
        if not self._is_chat:
            return f"{cast('Any', self._processor).image_token}{prompt}"
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt or DESCRIBE}]}]
        return str(cast("Any", self._processor).apply_chat_template(said, tokenize=False, add_generation_prompt=True))
