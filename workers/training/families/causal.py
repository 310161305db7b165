"""Causal language models: a prompt, and the answer that follows it; the loss is the answer's alone."""

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
    tokenizer = tokenizer_for(info, data, ends=False)
    if info.hub is not None:
        model = weights_of("text-generation", info.hub, **loading)
    else:
        model = build_base(info, seed=seed, more=sizes_of(tokenizer))
    return Base(
        model=model,
        examples=lambda split: CausalExamples(
            split, tokenizer, longest_input=data.longest_input, longest_answer=data.longest_answer
        ),
    )


class CausalExamples:
    """Prompts and answers as token ids.

    Args:
        split: prompts and texts.
        tokenizer: the model's; a chat model's own frame is put around a prompt.
        longest_input: the last tokens of a prompt are kept, where the question usually is.
        longest_answer: tokens of an answer, the one that ends it included.
    """

    def __init__(
        self, split: TextPairs, tokenizer: PreTrainedTokenizerBase, *, longest_input: int, longest_answer: int
    ) -> None:
        self._tokenizer, self._longest_answer = tokenizer, longest_answer
        framed = tokenizer.chat_template is not None
        prompts = [_framed(tokenizer, text) for text in split.inputs] if framed else list(split.inputs)
        answers = [text if framed else f" {text}" for text in split.labels]
        self._prompts = [ids[-longest_input:] for ids in _ids(tokenizer, prompts, special=not framed)]
        end = [int(tokenizer.eos_token_id)]
        self._answers = [[*ids[: longest_answer - 1], *end] for ids in _ids(tokenizer, answers, special=False)]

    def __len__(self) -> int:
        return len(self._prompts)

    def units(self, chosen: torch.Tensor) -> int:
        """Tokens of the answers."""
        return sum(len(self._answers[place]) for place in chosen.tolist())

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Prompt and answer in a row; each place's target is the next token, where that is of the answer."""
        pairs = [(self._prompts[place], self._answers[place]) for place in chosen.tolist()]
        rows = [[*prompt, *answer] for prompt, answer in pairs]
        targets = [[*[IGNORED] * (len(prompt) - 1), *answer, IGNORED] for prompt, answer in pairs]
        return Batch(
            inputs={
                "input_ids": padded(rows, int(self._tokenizer.pad_token_id)).to(device),
                "attention_mask": padded([[1] * len(row) for row in rows], 0).to(device),
                "use_cache": False,
            },
            targets=padded(targets, IGNORED).to(device),
            tokens=sum(map(len, rows)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What the model writes after each prompt."""
        prompts = [self._prompts[place] for place in chosen.tolist()]
        ids = padded(prompts, int(self._tokenizer.pad_token_id), left=True).to(device)
        mask = padded([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
        return generate(
            model,
            {"input_ids": ids, "attention_mask": mask},
            self._tokenizer,
            longest=self._longest_answer,
            skip=ids.shape[1],
        )


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, add_special_tokens=special)["input_ids"] if texts else []
    return found


def _framed(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """As the model was trained to be asked."""
    said = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
