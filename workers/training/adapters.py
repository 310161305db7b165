"""Which weights a fine-tune changes, how many those are, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, get_peft_model
from torch import nn

from workers.contract import Adapter
from workers.errors import JobError
from workers.training.models import ModelInfo


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Logical parameters of a model: the elements of its weights, however they are stored.

    Attributes:
        trainable: those a fine-tune changes.
        total: all, the adapter's included.
    """

    trainable: int
    total: int


def adapt(model: nn.Module, adapter: Adapter, info: ModelInfo) -> nn.Module:
    """The model with exactly the weights trainable that ``adapter`` says; the one given is changed, and may be wrapped.

    ``none`` freezes everything, ``full`` nothing. ``lora`` adds ``rank * (d_in + d_out)`` weights to each linear
    layer that is targeted and freezes the rest, the classifier's head included unless it is targeted. A fresh
    LoRA changes no answer. Its weights draw from torch's global generator, which ``prepare`` seeds.

    Raises:
        JobError: a target names no module, or one that LoRA cannot be attached to at this rank.
    """
    if adapter.method != "lora":
        return model.requires_grad_(adapter.method == "full")
    targets = info.lora_targets if adapter.targets is None else adapter.targets
    _check_targets(model, targets)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=2 * adapter.rank if adapter.alpha is None else adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(targets),
    )
    try:
        return cast("nn.Module", get_peft_model(cast("Any", model), config))
    except ValueError as error:
        raise JobError(
            f"LoRA of rank {adapter.rank} cannot be attached to {', '.join(targets)}: {error} "
            f"Choose adapter.targets among: {', '.join(_linear_names(model))}."
        ) from error


def count_parameters(model: nn.Module) -> ParameterCount:
    """Logical parameters.

    Not ``numel()``: bitsandbytes packs two 4-bit weights into a byte, so a quantised weight reports half its
    elements, and a figure per million parameters would come out wrong by up to two.
    """
    trainable = total = 0
    for parameter in model.parameters():
        count = _logical_count(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return ParameterCount(trainable=trainable, total=total)
