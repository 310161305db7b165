"""Tokenizers and padding of the families that read text. The door of tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from workers.errors import JobError
from workers.tasks.data import AnySplit, PicturePrompts, TaskData
from workers.training.hub import tokenizer_of
from workers.training.models import ModelInfo

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
VOCABULARY = 600
"""Tokens of a tiny model: 256 bytes, so that any text can be written, and their most frequent runs in the data."""


def texts_of(split: AnySplit) -> list[str]:
    """What a small tokenizer is trained on: inputs, and answers, which begin with a space as they do in training."""
    answers = [f" {text}" for text in split.labels] if isinstance(split.labels, tuple) else []
    prompts = split.inputs.prompts if isinstance(split.inputs, PicturePrompts) else split.inputs
    return [*prompts, *answers]


def tokenizer_for(
    info: ModelInfo,
    data: TaskData,
    *,
    ends: bool,
    texts: Callable[[AnySplit], list[str]] = texts_of,
    more: Sequence[str] = (),
) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, or for one that is built here a small one trained on what it learns from.

    Args:
        info: the model.
        data: the task's.
        ends: whether a small one closes each text with ``END``, as those of encoders do.
        texts: what of a split a small one is trained on.
        more: special tokens of a small one besides.

    Raises:
        JobError: the hub's cannot be had.
    """
    if info.hub is not None:
        return tokenizer_of(info.hub, info.trust)
    learned = [split for split in (data.train, data.source) if split is not None]
    return _trained(chain.from_iterable(map(texts, learned)), ends=ends, more=more)


def with_places(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The same, if it tells where in a text its tokens are.

    Raises:
        JobError: it does not.
    """
    if not tokenizer.is_fast:
        raise JobError(
            f"the tokenizer of {name} does not tell where in a text its tokens stand, which this task needs; "
            "choose a model that has a fast one (tokenizer.json)."
        )
    return tokenizer


def sizes_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What a configuration must know of a small tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }


def padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    """``(n, longest)`` int64, filled up with ``value`` on one side."""
    longest = max(len(row) for row in rows)
    filled = [
        [*[value] * (longest - len(row)), *row] if left else [*row, *[value] * (longest - len(row))] for row in rows
    ]
    return torch.tensor(filled, dtype=torch.long)


def longest_for(tokenizer: PreTrainedTokenizerBase, longest: int) -> int:
    """Tokens of a text at most: ``longest``, or fewer where the model takes fewer."""
    return min(longest, int(tokenizer.model_max_length))


def text_inputs(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Token ids as an encoder takes them, padded on the right."""
    return {
        "input_ids": padded(rows, pad).to(device),
        "attention_mask": padded([[1] * len(row) for row in rows], 0).to(device),
    }


def _trained(texts: Iterable[str], *, ends: bool, more: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level pairs, of the texts that are learned from; the same texts make the same tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, UNKNOWN, *more],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if ends:
        end = (END, tokenizer.token_to_id(END))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B:1 {END}:1", special_tokens=[end]
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
