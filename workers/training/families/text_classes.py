"""Text classifiers: tokens in, the likeliest label out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from workers.tasks.data import LabelledTexts, TaskData
from workers.training.examples import Answers, Batch
from workers.training.families.base import Base
from workers.training.families.tokenizing import longest_for, sizes_of, text_inputs, tokenizer_for
from workers.training.hub import weights_of
from workers.training.load import build_base, drawn_from
from workers.training.models import ModelInfo


def base(info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
    """The classifier with one output for each class of the task; a pretrained body may get a new head.

    Raises:
        JobError: it or its tokenizer cannot be built or loaded.
    """
    tokenizer = tokenizer_for(info, data, ends=True)
    if info.hub is None:
        model = build_base(info, seed=seed, classes=data.classes, more=sizes_of(tokenizer))
    else:
        with drawn_from(seed):  # a head that the model does not bring
            model = weights_of("text-classification", info.hub, num_labels=data.classes, **loading)
        model.config.pad_token_id = tokenizer.pad_token_id
    return Base(model=model, examples=lambda split: TextClassExamples(split, tokenizer, longest=data.longest_input))


class TextClassExamples:
    """Texts as token ids, the first ``longest`` of each, and their labels."""

    def __init__(self, split: LabelledTexts, tokenizer: PreTrainedTokenizerBase, *, longest: int) -> None:
        self._pad, self._labels = int(tokenizer.pad_token_id), torch.from_numpy(split.labels)
        texts = list(split.inputs)
        self._texts: list[list[int]] = (
            tokenizer(texts, truncation=True, max_length=longest_for(tokenizer, longest))["input_ids"] if texts else []
        )

    def __len__(self) -> int:
        return len(self._texts)

    def units(self, chosen: torch.Tensor) -> int:
        """One label for each text."""
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """Tokens, and the labels as targets."""
        rows = [self._texts[place] for place in chosen.tolist()]
        return Batch(
            inputs=text_inputs(rows, self._pad, device),
            targets=self._labels[chosen].to(device),
            tokens=sum(map(len, rows)),
        )

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """The likeliest label of each."""
        batch = self.batch(chosen, device)
        return Answers(values=model(**batch.inputs).logits.argmax(dim=-1).tolist(), tokens=batch.tokens)
