"""Token classifiers: a tag for each word, which its first token carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.tasks.data import AnySplit, TaggedWords, TaskData
from workers.training.examples import IGNORED, Answers, Batch
from workers.training.families.base import Base
from workers.training.families.tokenizing import (
    longest_for,
    padded,
    sizes_of,
    text_inputs,
    tokenizer_for,
    with_places,
)
from workers.training.hub import config_of, trust_in, weights_of
from workers.training.load import build_base, drawn_from
from workers.training.models import ModelInfo

OUTSIDE = "O"
"""The tag of a word that is of no entity, and of one that the model was not given."""


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The tagger. One of the hub that knows the task's tags keeps its own; any other gets a new head.

    Raises:
        JobError: it or its tokenizer cannot be built or loaded, or the tokenizer does not tell where its tokens are.
    """
    tokenizer = with_places(tokenizer_for(info, data, ends=True, texts=sentences), str(info.hub))
    tags = sorted(
        {tag for split in (data.train, data.source) if split is not None for row in split.labels for tag in row}
    )
    labels = {"id2label": dict(enumerate(tags)), "label2id": {tag: place for place, tag in enumerate(tags)}}
    if info.hub is None:
        model = build_base(info, seed=seed, more={**sizes_of(tokenizer), **labels})
    else:
        model = _pretrained(info.hub, tags, labels, seed=seed, loading=loading)
    numbers = cast("Mapping[str, int]", model.config.label2id)
    own = sorted(numbers, key=lambda tag: numbers[tag])
    return Base(
        model=model, examples=lambda split: WordTagExamples(split, tokenizer, tags=own, longest=data.longest_input)
    )


def _pretrained(
    name: str, tags: Sequence[str], labels: Mapping[str, object], *, seed: int, loading: Mapping[str, object]
) -> PreTrainedModel:
    known = config_of(name, trust_in(loading)).label2id or {}
    anew = {} if set(tags) <= set(known) else {**labels, "ignore_mismatched_sizes": True}
    with drawn_from(seed):  # a head that the model does not bring
        return weights_of("token-classification", name, **anew, **loading)


def sentences(split: AnySplit) -> list[str]:
    """The words of each with a space between them."""
    return [" ".join(words) for words in split.inputs]


class WordTagExamples:
    """Sentences as token ids, with the place of each word's first token.

    Args:
        split: words, and a tag for each.
        tokenizer: the model's, one that tells where its tokens are.
        tags: the model's, by number.
        longest: tokens of a sentence that are kept, the first ones.
    """

    def __init__(
        self, split: TaggedWords, tokenizer: PreTrainedTokenizerBase, *, tags: Sequence[str], longest: int
    ) -> None:
        self._pad, self._tags, self._labels = int(tokenizer.pad_token_id), tags, split.labels
        self._numbers = {tag: number for number, tag in enumerate(tags)}
        self._rows: list[list[int]] = []
        self._firsts: list[list[int | None]] = []
        if split.inputs:
            found = tokenizer(
                sentences(split),
                truncation=True,
                max_length=longest_for(tokenizer, longest),
                return_offsets_mapping=True,
            )
            self._rows = found["input_ids"]
            self._firsts = list(map(first_tokens, split.inputs, found["offset_mapping"]))

    def __len__(self) -> int:
        return len(self._rows)

    def units(self, chosen: torch.Tensor) -> int:
        """Words that the model is given."""
        return sum(first is not None for place in chosen.tolist() for first in self._firsts[place])

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Tokens, and the tag of each word at its first one."""
        places = chosen.tolist()
        rows = [self._rows[place] for place in places]
        targets = [[IGNORED] * len(row) for row in rows]
        for target, place in zip(targets, places, strict=True):
            for first, tag in zip(self._firsts[place], self._labels[place], strict=True):
                if first is not None:
                    target[first] = self._numbers[tag]
        return Batch(
            inputs=text_inputs(rows, self._pad, device),
            targets=padded(targets, IGNORED).to(device),
            tokens=sum(map(len, rows)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The likeliest tag of each word; ``OUTSIDE`` where that is none of BIO's, or the word was cut off."""
        rows = [self._rows[place] for place in chosen.tolist()]
        likeliest = model(**text_inputs(rows, self._pad, device)).logits.argmax(dim=-1).tolist()
        values = [
            tuple(OUTSIDE if first is None else self._tag(numbers[first]) for first in self._firsts[place])
            for place, numbers in zip(chosen.tolist(), likeliest, strict=True)
        ]
        return Answers(values=values, tokens=sum(map(len, rows)))

    def _tag(self, number: int) -> str:
        tag = self._tags[number]
        return tag if tag.startswith(("B-", "I-")) else OUTSIDE


def first_tokens(words: Sequence[str], places: Sequence[tuple[int, int]]) -> list[int | None]:
    """The first token of each word; ``None`` for one that has none, being cut off or nothing to the tokenizer.

    Args:
        words: of a sentence, with a space between them.
        places: where in it each token begins and ends, in characters; a token may begin at the space before a word.
    """
    found: list[int | None] = []
    start = token = 0
    for word in words:
        end = start + len(word)
        while token < len(places) and places[token][1] <= start:
            token += 1
        found.append(token if token < len(places) and places[token][0] < end else None)
        start = end + 1
    return found
