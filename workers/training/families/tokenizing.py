"""Tokenizers and padding of the families that read text. The door of tokenizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from workers.tasks.data import AnySplit, TaskData
from workers.training.hub import tokenizer_of
from workers.training.models import ModelInfo

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
VOCABULARY = 600
"""Tokens of a tiny model: 256 bytes, so that any text can be written, and their most frequent runs in the data."""


def tokenizer_for(info: ModelInfo, data: TaskData, *, ends: bool) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, or for one that is built here a small one trained on what it learns from.

    Args:
        info: the model.
        data: the task's.
        ends: whether a small one closes each text with ``END``, as those of encoders do.

    Raises:
        JobError: the hub's cannot be had.
    """
    return tokenizer_of(info.hub, info.trust) if info.hub is not None else _trained(data, ends=ends)


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


def _trained(data: TaskData, *, ends: bool) -> PreTrainedTokenizerFast:
    """Byte-level pairs, of the splits that are learned from; the same data makes the same tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*_texts(data.train), *(() if data.source is None else _texts(data.source))]
    tokenizer.train_from_iterator(texts, trainer)
    if ends:
        end = (END, tokenizer.token_to_id(END))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def _texts(split: AnySplit) -> list[str]:
    """Answers begin with a space there, as they do where they are trained on."""
    answers = [f" {text}" for text in split.labels] if isinstance(split.labels, tuple) else []
    return [*split.inputs, *answers]
