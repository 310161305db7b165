"""Answers written token by token, greedily, with reading the prompt and writing the answer timed apart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from workers.training.examples import Answers, Generation


class _FirstToken(StoppingCriteria):
    """Never stops; notes when it is first asked, which is when the first token is there."""

    def __init__(self) -> None:
        self.at_s: float | None = None
        self.at_ns = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG002
        if self.at_s is None:
            _finish(input_ids.device)
            self.at_s, self.at_ns = time.monotonic(), time.time_ns()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def generate(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int,
    skip: int,
    ends: Sequence[int] = (),
) -> Answers:
    """The texts that ``model`` answers.

    Args:
        model: one of transformers' that generates, adapted or not.
        inputs: ``input_ids`` and ``attention_mask`` on the model's device; padded on the left where it has no encoder.
        tokenizer: the model's.
        longest: tokens of an answer at most.
        skip: how many tokens of what comes back are no part of the answer.
        ends: tokens that end an answer; none: as model and tokenizer say.
    """
    ends = list(ends) or _ends(model, tokenizer)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=longest, do_sample=False, num_beams=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends
    )
    first = _FirstToken()
    started_s = time.monotonic()
    rows = cast("Any", model).generate(
        **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([first])
    )
    _finish(rows.device)
    ended_s, ended_ns = time.monotonic(), time.time_ns()
    written = rows[:, skip:]
    is_end = torch.isin(written, torch.tensor(ends, device=written.device)).long()
    prompt, answer = int(inputs["attention_mask"].sum()), int((is_end.cumsum(dim=1) - is_end == 0).sum())
    first_s = ended_s if first.at_s is None else first.at_s
    return Answers(
        values=[text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)],
        tokens=prompt + answer,
        generation=Generation(
            prefill_tokens=prompt,
            decode_tokens=answer,
            prefill_s=first_s - started_s,
            decode_s=ended_s - first_s,
            prefill_ended_ns=first.at_ns or ended_ns,
            ended_ns=ended_ns,
        ),
    )


def _ends(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: those the model says (chat models have several), else the tokenizer's."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = said if isinstance(said, list) else [said]
    return [int(end) for end in ends if end is not None] or [int(tokenizer.eos_token_id)]


def _finish(device: torch.device) -> None:
    """A GPU works behind the host: wait for it, or the times are of the host alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
