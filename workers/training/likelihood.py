"""How likely a model finds the right answers: what perplexity is made of. Nothing is generated for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.training.examples import IGNORED, Examples
from workers.training.memory import named_memory

Tokens = list[NDArray[np.int64]]
LogProbabilities = list[NDArray[np.float64]]


def log_probabilities(
    model: nn.Module,
    examples: Examples,
    *,
    count: int,
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[], None],
) -> tuple[LogProbabilities, Tokens]:
    """For each of the first ``count`` examples, how probable the model finds each token of the right answer.

    Each token is judged after the prompt and the right tokens before it, the one that ends the answer included.

    Args:
        model: on ``device``; of a family whose targets are tokens. It is left in the mode it came in.
        examples: the split as the model takes it.
        count: examples.
        batch_size: examples per forward pass.
        device: where the batches go.
        on_batch: called after each.

    Returns:
        Natural logarithms ``(length,)`` each, and the tokens ``(length,)`` each.

    Raises:
        JobError: the device's memory does not hold a batch.
    """
    found: LogProbabilities = []
    tokens: Tokens = []
    was_training = model.training
    model.eval()
    with named_memory(batch_size), torch.inference_mode():
        for chosen in torch.split(torch.arange(count), batch_size):
            batch = examples.batch(chosen, device)
            logits = model(**batch.inputs).logits.float()
            losses = nn.functional.cross_entropy(
                logits.transpose(1, 2), batch.targets, ignore_index=IGNORED, reduction="none"
            )
            for row, targets in zip(losses.cpu().double(), batch.targets.cpu(), strict=True):
                counted = targets != IGNORED
                found.append(-row[counted].numpy())
                tokens.append(targets[counted].numpy())
            on_batch()
    model.train(was_training)
    return found, tokens
