"""The state a model is in while something is done with it: on which device, train or eval, with which activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from workers.contract import Training
from workers.errors import JobError


def put(model: nn.Module, device: torch.device) -> None:
    """Move the model, unless it is there: quantised weights refuse to be moved, even to where they are."""
    if any(parameter.device != device for parameter in model.parameters()):
        model.to(device)


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or eval mode inside, the mode before afterwards.

    Batch norms that are frozen stay in eval mode: in train mode they would go on averaging what they see, and an
    adapter would fit a base that its saved file does not hold.
    """
    before = model.training
    model.train(training)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(weight.requires_grad for weight in module.parameters()):
            module.eval()
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def checkpointed(model: nn.Module, training: Training) -> Iterator[None]:
    """Activations are computed again in the backward pass inside, where that is asked for.

    Raises:
        JobError: the model cannot.
    """
    if not training.gradient_checkpointing:
        yield
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
        raise JobError(
            f"a {kind} model cannot do gradient checkpointing; set training.gradient_checkpointing: false. "
            "More training.gradient_accumulation_steps save memory as well."
        )
    # Reentrant checkpointing would lose the gradients of a LoRA, whose inputs need none.
    model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    try:
        yield
    finally:
        model.activation_checkpointing_disable()  # type: ignore[operator]
