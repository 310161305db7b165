"""Extractive question answering: where in its text an answer begins and ends.

A text too long for the model is read in windows that overlap. It is trained on the one that holds the answer, and
answers with the best span of all.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from workers.tasks.data import AnySplit, Question, Questions, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.families.tokenizing import (
    longest_for,
    padded,
    sizes_of,
    text_inputs,
    tokenizer_for,
    with_places,
)
from workers.training.hub import weights_of
from workers.training.load import build_base, drawn_from
from workers.training.models import ModelInfo

KINDS = "token_type_ids"
"""What tells question from text, in models that have it."""


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The model and its tokenizer; a pretrained body may get a new head.

    Raises:
        JobError: one of them cannot be built or loaded, or the tokenizer does not tell where its tokens are.
    """
    tokenizer = with_places(tokenizer_for(info, data, ends=True, texts=questions_and_texts), str(info.hub))
    if info.hub is None:
        model = build_base(info, seed=seed, more=sizes_of(tokenizer))
    else:
        with drawn_from(seed):  # a head that the model does not bring
            model = weights_of("question-answering", info.hub, **loading)
    return Base(
        model=model,
        examples=lambda split: SpanExamples(
            cast("Questions", split),
            tokenizer,
            longest=data.longest_input,
            longest_answer=data.longest_answer,
            takes_kinds=KINDS in inspect.signature(model.forward).parameters,
            may_abstain=any("" in answers for answers in data.train.labels),
        ),
    )


def questions_and_texts(split: AnySplit) -> list[str]:
    """All that is read."""
    return [text for given in split.inputs for text in given]


@dataclass(frozen=True, kw_only=True)
class SpanBatch(Batch):
    """Windows whose targets are ``(n, 2)``: the first and last token of the answer."""

    def loss(self, outputs: Any) -> torch.Tensor:  # noqa: ANN401 - transformers has an output class for each head
        """The mean of the cross-entropies of both ends over the tokens, padding left out."""
        padding = self.inputs["attention_mask"] == 0
        both = [
            nn.functional.cross_entropy(logits.float().masked_fill(padding, -torch.inf), ends)
            for logits, ends in zip((outputs.start_logits, outputs.end_logits), self.targets.T, strict=True)
        ]
        return (both[0] + both[1]) / 2


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A question and a part of its text, as tokens.

    Attributes:
        kinds: 0 for tokens of the question, 1 for the text's.
        places: where in the text each token stands, in characters; ``None`` for those of no text.
        nowhere: the token that means that there is no answer.
    """

    ids: list[int]
    kinds: list[int]
    places: list[tuple[int, int] | None]
    nowhere: int

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and last token of what stands there in the text; ``None`` where it is not whole in here."""
        inside = [token for token, place in enumerate(self.places) if place and place[1] > start and place[0] < end]
        whole = [place for token in inside[:1] + inside[-1:] if (place := self.places[token])]
        if not whole or whole[0][0] > start or whole[-1][1] < end:
            return None
        return inside[0], inside[-1]


class SpanExamples:
    """Questions with their texts, in windows.

    Args:
        split: questions, answers, and where they begin.
        tokenizer: the model's, one that tells where its tokens are.
        longest: tokens of a window; a question is cut to half of it.
        longest_answer: tokens of an answer.
        takes_kinds: whether the model is told question from text.
        may_abstain: whether it may answer that there is no answer.
    """

    def __init__(
        self,
        split: Questions,
        tokenizer: PreTrainedTokenizerBase,
        *,
        longest: int,
        longest_answer: int,
        takes_kinds: bool,
        may_abstain: bool,
    ) -> None:
        self._pad, self._takes_kinds, self._may_abstain = int(tokenizer.pad_token_id), takes_kinds, may_abstain
        self._contexts, self._longest_answer = [given.context for given in split.inputs], longest_answer
        self._windows = _windows(tokenizer, split.inputs, longest_for(tokenizer, longest))
        self._learned = [
            _with_answer(windows, start, answers[0])
            for windows, start, answers in zip(self._windows, split.starts, split.labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def units(self, chosen: torch.Tensor) -> int:
        """One answer for each question."""
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """The window of each that holds the answer, and the answer's ends as targets."""
        learned = [self._learned[place] for place in chosen.tolist()]
        windows = [window for window, _ in learned]
        return SpanBatch(
            inputs=self._inputs(windows, device),
            targets=torch.tensor([ends for _, ends in learned], device=device),
            tokens=sum(len(window.ids) for window in windows),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The likeliest span of all windows of each; nothing, where none is likelier and that may be."""
        asked = [(place, window) for place in chosen.tolist() for window in self._windows[place]]
        found: dict[int, list[tuple[float, float, str]]] = {}
        for part in (asked[first : first + len(chosen)] for first in range(0, len(asked), len(chosen))):
            outputs = model(**self._inputs([window for _, window in part], device))
            for row, (place, window) in enumerate(part):
                best = self._best(outputs.start_logits[row], outputs.end_logits[row], window, self._contexts[place])
                found.setdefault(place, []).append(best)
        values = [self._chosen(found[place]) for place in chosen.tolist()]
        return Answers(values=values, tokens=sum(len(window.ids) for _, window in asked))

    def _best(
        self, starts: torch.Tensor, ends: torch.Tensor, window: _Window, context: str
    ) -> tuple[float, float, str]:
        """The score of the likeliest span of a window, that of there being none, and the span's text."""
        starts, ends = (logits[: len(window.ids)].float().cpu() for logits in (starts, ends))
        nowhere = float(starts[window.nowhere] + ends[window.nowhere])
        outside = torch.tensor([place is None for place in window.places])
        both = starts.masked_fill(outside, -torch.inf)[:, None] + ends.masked_fill(outside, -torch.inf)[None, :]
        allowed = torch.ones_like(both, dtype=torch.bool).triu().tril(self._longest_answer - 1)
        score, at = both.masked_fill(~allowed, -torch.inf).flatten().max(dim=0)
        first, last = (window.places[token] for token in divmod(int(at), len(window.ids)))
        text = "" if first is None or last is None else context[first[0] : last[1]].strip()
        return float(score), nowhere, text

    def _chosen(self, found: Sequence[tuple[float, float, str]]) -> str:
        score, _, text = max(found, key=lambda one: one[0])
        nowhere = min(one[1] for one in found)
        return "" if self._may_abstain and nowhere > score else text

    def _inputs(self, windows: Sequence[_Window], device: torch.device) -> dict[str, torch.Tensor]:
        inputs = text_inputs([window.ids for window in windows], self._pad, device)
        if self._takes_kinds:
            inputs[KINDS] = padded([window.kinds for window in windows], 0).to(device)
        return inputs


def _with_answer(windows: Sequence[_Window], start: int | None, answer: str) -> tuple[_Window, tuple[int, int]]:
    """The first window that holds the answer, and its ends there; the first of all, and nowhere, where none does."""
    if start is not None:
        for window in windows:
            if ends := window.span(start, start + len(answer)):
                return window, ends
    return windows[0], (windows[0].nowhere, windows[0].nowhere)


def _windows(tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], longest: int) -> list[list[_Window]]:
    """Those of each question, which overlap by a quarter."""
    windows: list[list[_Window]] = [[] for _ in asked]
    if not asked:
        return windows
    found = tokenizer(
        _cut(tokenizer, [given.question for given in asked], longest // 2),
        [given.context for given in asked],
        truncation="only_second",
        max_length=longest,
        stride=longest // 4,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    for row, place in enumerate(found["overflow_to_sample_mapping"]):
        ids, places = found["input_ids"][row], found["offset_mapping"][row]
        of_text = [sequence == 1 for sequence in found.sequence_ids(row)]
        windows[place].append(
            _Window(
                ids=ids,
                kinds=found[KINDS][row],
                places=[place if inside else None for place, inside in zip(places, of_text, strict=True)],
                nowhere=ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0,
            )
        )
    return windows


def _cut(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], longest: int) -> list[str]:
    """Their first so many tokens."""
    found = tokenizer(
        [question.strip() for question in questions],
        add_special_tokens=False,
        truncation=True,
        max_length=longest,
        return_offsets_mapping=True,
    )
    return [
        question.strip()[: places[-1][1] if places else 0]
        for question, places in zip(questions, found["offset_mapping"], strict=True)
    ]
