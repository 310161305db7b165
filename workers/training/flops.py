"""How many floating-point operations a phase took: counted by torch on an example outside the phase, then scaled to it.

``FlopCounterMode`` sees matrix products, convolutions and attention as the device is asked for them, so padding counts,
and so does what gradient checkpointing computes again: these are operations of the hardware, not of the model on paper.
It slows what it watches, and is therefore never on in a phase.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop, sdpa_flop
from torch.utils.module_tracker import ModuleTracker

from workers.contract import Training
from workers.training.examples import Examples
from workers.training.modes import checkpointed, mode
from workers.training.precision import autocast
from workers.training.ranks import Ranks
from workers.training.steps import OnStep, StepResult

ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}
"""Attention as a CPU does it, which torch's own table leaves out: the formulas are those of the same on a GPU."""


class _AllModules(ModuleTracker):
    """Tells no module apart: a table nobody reads, whose hooks take time and fail where inference needs gradients."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(kw_only=True)
class Tally:
    """What some steps were made of.

    Attributes:
        samples: samples in them; ``tokens``: tokens, ``None`` where there are none.
    """

    samples: int = 0
    tokens: int | None = None

    def add(self, result: StepResult) -> None:
        """One more step."""
        self.samples += result.samples
        self.tokens = self.tokens if result.tokens is None else (self.tokens or 0) + result.tokens

    def noting(self, on_step: OnStep) -> OnStep:
        """``on_step``, which also adds what it is called with."""

        def on(result: StepResult) -> None:
            self.add(result)
            on_step(result)

        return on

    @property
    def units(self) -> int:
        """What operations grow with: tokens, else samples.

        Exact in tokens for linear layers, where padding is as frequent; attention's part, which grows with the square
        of the length, is that of the example's lengths.
        """
        return self.samples if self.tokens is None else self.tokens


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations counted on an example.

    Attributes:
        by_format: number format, in torch's name of it (``float32``), to operations in it.
        units: of the example, as a ``Tally`` has them.
    """

    by_format: Mapping[str, int]
    units: int

    def of(self, done: Tally) -> dict[str, float]:
        """The operations of ``done`` by number format, in proportion to its units."""
        return {name: count * done.units / self.units for name, count in self.by_format.items()}

    def to_text(self) -> str:
        """For another rank."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Flops:
        """What ``to_text`` wrote."""
        return cls(**json.loads(text))


def is_countable(model: nn.Module) -> bool:
    """Whether torch's counter sees the model's layers: those of bitsandbytes compute in operators of their own."""
    return not getattr(model, "is_quantized", False)


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Inside, operations are counted by number format, forward and backward."""
    found: Counter[str] = Counter()
    formulas = {operator: _noting(formula, found) for operator, formula in {**flop_registry, **ON_CPU}.items()}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    counter.mod_tracker = _AllModules()
    with counter:
        yield found


def of_training(
    model: nn.Module, examples: Examples, training: Training, *, device: torch.device, ranks: Ranks
) -> Flops | None:
    """Operations of one micro-batch of this fine-tune, forward and backward; the model is left as it was.

    ``None`` where the counter does not see all of it (quantised layers), and where the model may not fit: one that
    DeepSpeed splits, or whose micro-batch finds no memory.
    """
    if not is_countable(model) or training.deepspeed is not None:
        return None
    size = math.ceil(training.batch_size / (ranks.world_size * training.gradient_accumulation_steps))
    chosen = torch.arange(min(size, len(examples)))
    try:
        with _untouched(model, device), mode(model, training=True), checkpointed(model, training):
            batch = examples.batch(chosen, device)
            with counting() as found:
                with autocast(device, bf16=training.bf16):
                    loss = batch.loss(model(**batch.inputs))
                loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return None
    return Flops(by_format=dict(found), units=Tally(samples=len(chosen), tokens=batch.tokens).units)


@contextlib.contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Buffers (averages of batch norms) and torch's generators are afterwards as before, and gradients are gone."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            model.zero_grad()
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])


def _noting(formula: Callable[..., int], found: Counter[str]) -> Callable[..., int]:
    """The formula, which also notes what it counts under the format of the operator's first tensor."""

    @functools.wraps(formula)
    def noted(*args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - whatever the operator takes
        count = formula(*args, **kwargs)
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        found[str(first.dtype).removeprefix("torch.")] += count
        return count

    noted._get_raw = True  # type: ignore[attr-defined] # so that the counter hands over tensors and not their shapes
    return noted
