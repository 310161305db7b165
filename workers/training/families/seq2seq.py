"""Encoder-decoders: the encoder reads the prompt, the decoder writes the answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from workers.tasks.data import TaskData, TextPairs
from workers.training.examples import IGNORED, Answers, Batch
from workers.training.families.base import Base
from workers.training.families.generation import generate
from workers.training.families.tokenizing import padded, sizes_of, tokenizer_for
from workers.training.hub import weights_of
from workers.training.load import build_base
from workers.training.models import ModelInfo


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The model and its tokenizer.

    Raises:
        JobError: one of them cannot be built or loaded.
    """
    tokenizer = tokenizer_for(info, data, ends=True)
    if info.hub is not None:
        model = weights_of("seq2seq", info.hub, **loading)
    else:
        model = build_base(
            info, seed=seed, more={**sizes_of(tokenizer), "decoder_start_token_id": tokenizer.pad_token_id}
        )
    start = int(model.config.decoder_start_token_id)
    return Base(
        model=model,
        examples=lambda split: Seq2seqExamples(
            split, tokenizer, start=start, longest_input=data.longest_input, longest_answer=data.longest_answer
        ),
    )


class Seq2seqExamples:
    """Prompts and answers as token ids.

    Args:
        split: prompts and texts.
        tokenizer: the model's.
        start: the token a decoder begins with.
        longest_input: tokens of a prompt that are kept, the first ones.
        longest_answer: tokens of an answer.
    """

    def __init__(
        self,
        split: TextPairs,
        tokenizer: PreTrainedTokenizerBase,
        *,
        start: int,
        longest_input: int,
        longest_answer: int,
    ) -> None:
        self._tokenizer, self._start, self._longest_answer = tokenizer, start, longest_answer
        self._prompts = _ids(tokenizer, list(split.inputs), longest_input)
        self._answers = _ids(tokenizer, [f" {text}" for text in split.labels], longest_answer)

    def __len__(self) -> int:
        return len(self._prompts)

    def units(self, chosen: torch.Tensor) -> int:
        """Tokens of the answers."""
        return sum(len(self._answers[place]) for place in chosen.tolist())

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """The prompt, the answer moved on by one for the decoder to read, and the answer as targets."""
        answers = [self._answers[place] for place in chosen.tolist()]
        inputs, read = self._prompted(chosen, device)
        shifted = padded([[self._start, *answer[:-1]] for answer in answers], int(self._tokenizer.pad_token_id))
        return Batch(
            inputs={**inputs, "decoder_input_ids": shifted.to(device), "use_cache": False},
            targets=padded(answers, IGNORED).to(device),
            tokens=read + sum(map(len, answers)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What the decoder writes of each prompt."""
        inputs, _ = self._prompted(chosen, device)
        return generate(model, inputs, self._tokenizer, longest=self._longest_answer, skip=1)

    def _prompted(self, chosen: torch.Tensor, device: torch.device) -> tuple[dict[str, torch.Tensor], int]:
        prompts = [self._prompts[place] for place in chosen.tolist()]
        inputs = {
            "input_ids": padded(prompts, int(self._tokenizer.pad_token_id)).to(device),
            "attention_mask": padded([[1] * len(prompt) for prompt in prompts], 0).to(device),
        }
        return inputs, sum(map(len, prompts))


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int) -> list[list[int]]:
    """With the tokens the model's own tokenizer puts around a text; its end is kept where the text is cut."""
    found: list[list[int]] = tokenizer(texts, truncation=True, max_length=longest)["input_ids"] if texts else []
    return found
