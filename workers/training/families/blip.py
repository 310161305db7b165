"""BLIP: its captioner goes on with a text, and its answerer reads the question apart.

They are asked otherwise than other vision-language models: nothing in their text stands for the picture, and a text
begins and ends with tokens of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from workers.errors import JobError
from workers.tasks.data import PictureTexts, TaskData
from workers.training.examples import IGNORED, Answers, Batch
from workers.training.families.base import Base
from workers.training.families.generation import generate
from workers.training.families.processing import learned, model_for, processor_for, rgb_of, tokenizer_in
from workers.training.families.tokenizing import padded
from workers.training.models import ModelInfo


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The answerer and its processor.

    Raises:
        JobError: one of them cannot be built or loaded; or the model is another kind of answerer.
    """
    processor = processor_for(info, data)
    model = model_for("visual-question-answering", info, processor, seed=seed, loading=loading)
    if model.config.model_type != "blip":
        raise JobError(
            f"of models that answer questions alone, BLIP's is known, and {info.hub} is a {model.config.model_type}; "
            "choose one that writes text of pictures."
        )
    for name, module in model.named_modules():
        if name.endswith(".crossattention.self"):
            module.register_forward_pre_hook(_with_mask, with_kwargs=True)
    return Base(model=model, examples=lambda split: AnswerExamples(split, processor, model, data))


@dataclass(frozen=True, kw_only=True)
class OwnLoss(Batch):
    """A batch whose loss the model takes itself, since it gives no logits."""

    def loss(self, outputs: Any) -> torch.Tensor:  # noqa: ANN401 - as Batch has it
        """Mean cross-entropy over the answers' tokens."""
        return cast("torch.Tensor", outputs.loss)


class _BlipExamples:
    """What both have in common: pictures that are read when a batch needs them, and answers as token ids."""

    def __init__(self, split: PictureTexts, processor: ProcessorMixin, model: PreTrainedModel, data: TaskData) -> None:
        text = model.config.text_config
        self._inputs, self._processor, self._tokenizer = split.inputs, processor, tokenizer_in(processor)
        self._longest_answer, self._limit = data.longest_answer, int(text.max_position_embeddings)
        self._begin, self._end, self._pad = int(text.bos_token_id), int(text.sep_token_id), int(text.pad_token_id)
        answers = self._ids([learned(label) for label in split.labels])
        self._answers = [[*ids[: data.longest_answer - 1], self._end] for ids in answers]

    def __len__(self) -> int:
        return len(self._inputs)

    def units(self, chosen: torch.Tensor) -> int:
        """Tokens of the answers."""
        return sum(len(self._answers[place]) for place in chosen.tolist())

    def _ids(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=special)["input_ids"] if texts else []
        return found

    def _pixels(self, chosen: torch.Tensor, device: torch.device) -> torch.Tensor:
        pictures = rgb_of([self._inputs[place] for place in chosen.tolist()])
        read = cast("Any", self._processor).image_processor(images=pictures, return_tensors="pt")
        return cast("torch.Tensor", read["pixel_values"].to(device))

    def _rows(self, rows: list[list[int]], device: torch.device, *, left: bool = False) -> dict[str, torch.Tensor]:
        """Token ids and what of them counts.

        Raises:
            JobError: the model cannot read so many.
        """
        if max(map(len, rows)) > self._limit:
            raise JobError(
                f"a prompt and its answer are {max(map(len, rows))} tokens, but the model reads {self._limit} at "
                "most. Choose a model that reads more, or a data set of shorter prompts."
            )
        return {
            "input_ids": padded(rows, self._pad, left=left).to(device),
            "attention_mask": padded([[1] * len(row) for row in rows], 0, left=left).to(device),
        }


class CaptionExamples(_BlipExamples):
    """Pictures and a text that begins with the prompt, if any, and goes on with the answer."""

    def __init__(self, split: PictureTexts, processor: ProcessorMixin, model: PreTrainedModel, data: TaskData) -> None:
        super().__init__(split, processor, model, data)
        self._prompts = [[self._begin, *ids] for ids in self._ids(list(split.inputs.prompts))]

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Prompt and answer in a row; each place's target is the next token, where that is of the answer."""
        pairs = [(self._prompts[place], self._answers[place]) for place in chosen.tolist()]
        rows = [[*prompt, *answer] for prompt, answer in pairs]
        targets = [[*[IGNORED] * (len(prompt) - 1), *answer, IGNORED] for prompt, answer in pairs]
        return Batch(
            inputs={"pixel_values": self._pixels(chosen, device), **self._rows(rows, device)},
            targets=padded(targets, IGNORED).to(device),
            tokens=sum(map(len, rows)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What the decoder, which sees the picture, writes after each prompt."""
        read = self._rows([self._prompts[place] for place in chosen.tolist()], device, left=True)

        def write(input_ids: torch.Tensor, attention_mask: torch.Tensor, **how: object) -> torch.Tensor:
            seen = cast("Any", model).vision_model(pixel_values=self._pixels(chosen, device))[0]
            return cast(
                "torch.Tensor",
                _decoder(model).generate(
                    input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=seen, **how
                ),
            )

        return generate(
            _Writer(write),
            read,
            self._tokenizer,
            longest=self._longest_answer,
            skip=read["input_ids"].shape[1],
            ends=(self._end,),
        )


class AnswerExamples(_BlipExamples):
    """Pictures with questions, which an encoder reads, and answers, which a decoder writes."""

    def __init__(self, split: PictureTexts, processor: ProcessorMixin, model: PreTrainedModel, data: TaskData) -> None:
        super().__init__(split, processor, model, data)
        self._questions = self._ids(list(split.inputs.prompts), special=True)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Question, and answer as the decoder reads it and as its labels, which the model moves on by one itself."""
        answers = [[self._begin, *self._answers[place]] for place in chosen.tolist()]
        read, written = self._asked(chosen, device), self._rows(answers, device)
        labels = padded(answers, IGNORED).to(device)
        return OwnLoss(
            inputs={
                "pixel_values": self._pixels(chosen, device),
                **read,
                **{f"decoder_{name}": value for name, value in written.items()},
                "labels": labels,
            },
            targets=labels,
            tokens=int(read["attention_mask"].sum() + written["attention_mask"].sum()),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What the decoder writes of each question.

        Not by the model's own ``generate``: it has the decoder look at the questions' padding too (transformers 5.23),
        so that an answer would depend on what it was batched with.
        """

        def write(input_ids: torch.Tensor, attention_mask: torch.Tensor, **how: object) -> torch.Tensor:
            seen = cast("Any", model).vision_model(pixel_values=self._pixels(chosen, device))[0]
            read = cast("Any", model).text_encoder(
                input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=seen
            )[0]
            begin = torch.full((len(input_ids), 1), self._begin, device=device)
            return cast(
                "torch.Tensor",
                _decoder(model).generate(
                    input_ids=begin, encoder_hidden_states=read, encoder_attention_mask=attention_mask, **how
                ),
            )

        asked = self._asked(chosen, device)
        return generate(_Writer(write), asked, self._tokenizer, longest=self._longest_answer, skip=1, ends=(self._end,))

    def _asked(self, chosen: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
        return self._rows([self._questions[place] for place in chosen.tolist()], device)


def _with_mask(
    module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The mask of the question under the name its attention reads it by.

    Transformers 5.23 hands it over as the mask of the answer, which is not read there, and an answer would depend on
    the padding of its question.
    """
    del module
    return positional, {**named, "encoder_attention_mask": named.get("attention_mask")}


class _Writer(nn.Module):
    """A model's parts, put together to answer."""

    def __init__(self, write: Any) -> None:  # noqa: ANN401 - two of different arguments
        super().__init__()
        self.generate = write


def _decoder(model: nn.Module) -> Any:  # noqa: ANN401 - transformers' generation is untyped
    return model.text_decoder
