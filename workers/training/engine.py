"""How losses become new weights, on one rank or several: data parallel here, split by DeepSpeed in ``zero``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workers.contract import Training
from workers.training.group import Group


class Engine(Protocol):
    """What trains a model between ``begin`` and ``end``. All ranks call the same methods in the same order.

    Raises:
        PeerLostError: from any method: another rank has ended.
    """

    def begin(self) -> None:
        """Make ready: the model and its optimiser are as they begin, on every rank."""
        ...

    def __call__(self, **inputs: object) -> Any:  # noqa: ANN401 - transformers has an output class for each head
        """The model's outputs."""
        ...

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of one micro-batch; the ranks' gradients meet in the last of a step."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of ``loss``; the ranks' are averaged."""
        ...

    def step(self) -> None:
        """New weights; the gradients are forgotten."""
        ...

    def tensors(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Parameters and buffers, whole, copied to the host of rank 0; nothing on other ranks."""
        ...

    def optimizer_state(self) -> Mapping[str, Any]:
        """The optimiser's ``state_dict``, whole, on rank 0: as one process would have it."""
        ...

    def end(self) -> None:
        """Leave the model whole on rank 0, as any other module."""
        ...


class Plain:
    """Every rank has all weights; with several, ``DistributedDataParallel`` averages their gradients."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, group: Group, device: torch.device) -> None:
        self._model, self._optimizer, self._group, self._device = model, optimizer, group, device
        self._wrapped = model

    def begin(self) -> None:
        """All ranks take the weights of rank 0."""
        self._wrapped = self._group.wrap(self._model, self._device)
        self._optimizer.zero_grad()

    def __call__(self, **inputs: object) -> Any:  # noqa: ANN401
        """Of the model, or what wraps it."""
        return self._wrapped(**inputs)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Only in the last of a step the ranks' gradients are added up."""
        if is_last or not isinstance(self._wrapped, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._wrapped.no_sync()

    def backward(self, loss: torch.Tensor) -> None:
        """As torch does it."""
        with self._group.peers():
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """As torch does it."""
        self._optimizer.step()
        self._optimizer.zero_grad()

    def tensors(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """All ranks have the same."""
        return on_host(tensors_of(self._model), names) if self._group.ranks.is_first else {}

    def optimizer_state(self) -> Mapping[str, Any]:
        """All ranks have the same."""
        return self._optimizer.state_dict()

    def end(self) -> None:
        """It is."""


def engine_for(
    model: nn.Module, optimizer: torch.optim.Optimizer, training: Training, group: Group, device: torch.device
) -> Engine:
    """The engine that ``training`` asks for.

    Raises:
        JobError: DeepSpeed is asked for and not installed, or cannot train this model.
    """
    if training.deepspeed is None:
        return Plain(model, optimizer, group, device)
    from workers.training.zero import Zero  # noqa: PLC0415 - so that only who asks for it needs DeepSpeed

    return Zero(model, optimizer, training, group, device)


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def on_host(tensors: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Copies of those of that name, which later steps do not change."""
    return {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in names}
