"""Masked language models: a whole word of a text is hidden, and the likeliest tokens in its place are the answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from workers.errors import JobError
from workers.tasks.data import MASK, AnySplit, TaskData, TextPairs
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
from workers.training.hub import whole_weights_of
from workers.training.load import build_base
from workers.training.models import ModelInfo

OWN_MASK = "<mask>"
"""Of a small tokenizer that is made here."""


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The model and its tokenizer, which has a mask.

    Raises:
        JobError: one of them cannot be built or loaded, the model comes without its head, or the tokenizer has no mask
            or does not tell where its tokens are.
    """
    tokenizer = with_places(tokenizer_for(info, data, ends=True, texts=whole_texts), str(info.hub))
    if info.hub is None:
        tokenizer.add_special_tokens({"mask_token": OWN_MASK})
        model = build_base(info, seed=seed, more=sizes_of(tokenizer))
    elif tokenizer.mask_token_id is None:
        raise JobError(
            f"the tokenizer of {info.hub} has no mask, so a word cannot be hidden from the model; "
            "choose a masked language model, such as BERT."
        )
    else:
        model = whole_weights_of("fill-mask", info.hub, **loading)
    return Base(model=model, examples=lambda split: MaskedExamples(split, tokenizer, longest=data.longest_input))


def whole_texts(split: AnySplit) -> list[str]:
    """The texts with their words back in place."""
    return [text.replace(MASK, word, 1) for text, word in zip(split.inputs, split.labels, strict=True)]


class MaskedExamples:
    """Texts as token ids, with masks in place of every token of the hidden word: their number is given away.

    Args:
        split: texts with ``MASK`` in place of a word, and the word.
        tokenizer: the model's, one that has a mask and tells where its tokens are.
        longest: tokens of a text that are kept, those around the word.
    """

    def __init__(self, split: TextPairs, tokenizer: PreTrainedTokenizerBase, *, longest: int) -> None:
        self._tokenizer, self._pad = tokenizer, int(tokenizer.pad_token_id)
        self._rows: list[list[int]] = []
        self._targets: list[list[int]] = []
        if not split.inputs:
            return
        longest, mask = longest_for(tokenizer, longest), int(tokenizer.mask_token_id)
        starts = [text.index(MASK) for text in split.inputs]
        texts = whole_texts(split)
        if any(len(text) > longest for text in texts):  # a token has a character at least
            texts, starts = _around(texts, starts, tokenizer, longest)
        found = tokenizer(texts, truncation=True, max_length=longest, return_offsets_mapping=True)
        for ids, places, start, word in zip(
            found["input_ids"], found["offset_mapping"], starts, split.labels, strict=True
        ):
            hides = [begins < start + len(word) and ends > start for begins, ends in places]
            self._rows.append([mask if hidden else token for token, hidden in zip(ids, hides, strict=True)])
            self._targets.append([token if hidden else IGNORED for token, hidden in zip(ids, hides, strict=True)])

    def __len__(self) -> int:
        return len(self._rows)

    def units(self, chosen: torch.Tensor) -> int:
        """Hidden tokens."""
        return sum(token != IGNORED for place in chosen.tolist() for token in self._targets[place])

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Tokens with masks, and as targets what they hide."""
        rows = [self._rows[place] for place in chosen.tolist()]
        return Batch(
            inputs=text_inputs(rows, self._pad, device),
            targets=padded([self._targets[place] for place in chosen.tolist()], IGNORED).to(device),
            tokens=sum(map(len, rows)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The word that the likeliest tokens make."""
        batch = self.batch(chosen, device)
        likeliest = model(**batch.inputs).logits.argmax(dim=-1)
        words = [row[hidden].tolist() for row, hidden in zip(likeliest, batch.targets != IGNORED, strict=True)]
        return Answers(
            values=[str(self._tokenizer.decode(word, skip_special_tokens=True)).strip() for word in words],
            tokens=batch.tokens,
        )


def _around(
    texts: list[str], starts: list[int], tokenizer: PreTrainedTokenizerBase, longest: int
) -> tuple[list[str], list[int]]:
    """The texts cut so that the hidden word stands within the first ``longest`` tokens, and where it begins there."""
    cut = []
    all_places = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for text, start, places in zip(texts, starts, all_places, strict=True):
        word = next(token for token, (_, ends) in enumerate(places) if ends > start)
        first = places[max(0, word - longest // 2)][0]
        cut.append((text[first:], start - first))
    return [text for text, _ in cut], [start for _, start in cut]
