"""A split as a model takes it: what the loop trains on and reads answers from, whatever the family.

The loop knows indices and this protocol; tokenizers, padding and generation are the family's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

IGNORED = -100
"""A target that does not count: padding, and the prompt of a causal model. Torch's own default."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some examples, on the device.

    Attributes:
        inputs: keyword arguments of the model.
        targets: class indices, one for each row of logits, ``IGNORED`` where none counts; or what the loss of a
            family's own kind of batch takes.
        tokens: what the model reads, padding left out; ``None`` where inputs are no tokens.
    """

    inputs: Mapping[str, object]
    targets: Any
    tokens: int | None = None

    def loss(self, outputs: Any) -> torch.Tensor:  # noqa: ANN401 - transformers has an output class for each head
        """Mean cross-entropy of the model's outputs over the targets that count; a family may have another."""
        return nn.functional.cross_entropy(
            outputs.logits.float().flatten(end_dim=-2), self.targets.flatten(), ignore_index=IGNORED
        )


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How a batch of answers was written, in two parts.

    Attributes:
        prefill_tokens: prompt tokens read; ``decode_tokens``: answer tokens written, padding left out of both.
        prefill_s: until the first token of the answers was there, s; ``decode_s``: the rest, s.
        prefill_ended_ns: when the first token was there, ns since the epoch; ``ended_ns``: the last.
    """

    prefill_tokens: int
    decode_tokens: int
    prefill_s: float
    decode_s: float
    prefill_ended_ns: int
    ended_ns: int


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model said of some examples.

    Attributes:
        values: one for each example, as the task's scores take them (``quality.registry.Takes``).
        tokens: read and written; ``None`` where there are none.
        generation: where answers were generated.
        denoising_steps: of each picture, where pictures are made of noise; ``None``: there are none, or not known.
    """

    values: Sequence[Any]
    tokens: int | None = None
    generation: Generation | None = None
    denoising_steps: int | None = None


class Examples(Protocol):
    """A split as one model takes it. ``chosen`` are indices, ``(m,)`` int64 on the CPU."""

    def __len__(self) -> int: ...

    def units(self, chosen: torch.Tensor) -> int:
        """How many targets count among the chosen: what the batch's loss is the mean over, to weigh parts by."""
        ...

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        """The chosen, to train on."""
        ...

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        """What ``model``, in eval mode and without gradients, says of the chosen."""
        ...
