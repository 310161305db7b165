"""Operations are counted by hand-worked sums, on an example that leaves no trace, and scaled to what was done."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from workers.contract import Adapter, DeepSpeed, Training
from workers.tasks import load_task, task_info
from workers.training import adapters, flops
from workers.training.examples import Answers, Batch, Examples
from workers.training.families import base_of
from workers.training.flops import Flops, Tally
from workers.training.models import model_info
from workers.training.ranks import Ranks
from workers.training.steps import StepResult

CPU = torch.device("cpu")
N, WIDTH, HIDDEN, CLASSES, RANK = 5, 7, 11, 3, 2


class Points:
    """Samples of ``WIDTH`` numbers and a class each."""

    def __len__(self) -> int:
        return 20

    def units(self, chosen: torch.Tensor) -> int:
        return len(chosen)

    def batch(self, chosen: torch.Tensor, device: torch.device) -> Batch:
        return Batch(inputs={"x": torch.rand(len(chosen), WIDTH)}, targets=chosen % CLASSES)

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        raise NotImplementedError


class Classifier(nn.Module):
    """Layers, and what transformers would wrap logits in."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.layers(x))


def of_training(model: nn.Module, examples: Examples | None = None, **training: Any) -> Flops | None:
    settings = Training(**{"batch_size": N, **training})
    return flops.of_training(model, examples or Points(), settings, device=CPU, ranks=Ranks())


def tiny(model: str, task: str) -> tuple[Any, Examples]:
    info, data = model_info(model), load_task(task, None, 0)
    base = base_of(task_info(task).families, info, data, seed=0)
    return base.model, base.examples(data.train)


# Not known


class OutOfMemory(nn.Module):
    """A model that finds no memory."""

    def forward(self, **_: object) -> None:
        raise torch.OutOfMemoryError


def quantized() -> nn.Module:
    model = Classifier(nn.Linear(WIDTH, CLASSES))
    model.is_quantized = True
    return model


@pytest.mark.parametrize(
    ("make", "training"),
    [
        (quantized, {}),
        (lambda: Classifier(nn.Linear(WIDTH, CLASSES)), {"deepspeed": DeepSpeed()}),
        (OutOfMemory, {}),
    ],
    ids=["quantised", "deepspeed", "no memory"],
)
def test_what_cannot_be_counted_is_not_known_and_ends_nothing(
    make: Callable[[], nn.Module], training: dict[str, Any]
) -> None:
    assert of_training(make(), **training) is None


# Counted


def test_a_linear_layer_takes_two_operations_per_weight_forward_and_four_backward() -> None:
    model = Classifier(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    # The first has no gradient to hand on: its input is data.
    assert of_training(model) == Flops(
        by_format={"float32": 4 * N * WIDTH * HIDDEN + 6 * N * HIDDEN * CLASSES}, units=N
    )


def test_a_lora_leaves_out_the_gradients_of_frozen_weights() -> None:
    adapter = Adapter(method="lora", rank=RANK, targets=("layers.0",))
    model = adapters.adapt(Classifier(nn.Linear(WIDTH, CLASSES)), adapter, model_info("tiny/vit"))
    # The frozen layer: forward only. A: forward and its own gradient. B: forward, its own and A's.
    expected = 2 * N * WIDTH * CLASSES + 4 * N * WIDTH * RANK + 6 * N * RANK * CLASSES
    assert of_training(model) == Flops(by_format={"float32": expected}, units=N)


def test_a_frozen_layer_above_a_trained_one_only_hands_gradients_on() -> None:
    model = Classifier(nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, CLASSES).requires_grad_(False))
    assert of_training(model) == Flops(
        by_format={"float32": 4 * N * WIDTH * HIDDEN + 4 * N * HIDDEN * CLASSES}, units=N
    )


def test_operations_are_told_by_the_format_they_are_in() -> None:
    found = of_training(Classifier(nn.Linear(WIDTH, CLASSES)), bf16=True)
    assert found == Flops(by_format={"bfloat16": 4 * N * WIDTH * CLASSES}, units=N)


def test_a_micro_batch_is_counted_as_it_is_trained_on() -> None:
    found = of_training(Classifier(nn.Linear(WIDTH, CLASSES)), batch_size=8, gradient_accumulation_steps=4)
    assert found == Flops(by_format={"float32": 4 * 2 * WIDTH * CLASSES}, units=2)
    ranks = flops.of_training(
        Classifier(nn.Linear(WIDTH, CLASSES)),
        Points(),
        Training(batch_size=8),
        device=CPU,
        ranks=Ranks(rank=0, world_size=2),
    )
    assert ranks == Flops(by_format={"float32": 4 * 4 * WIDTH * CLASSES}, units=4)


def test_a_forward_pass_of_a_language_model_is_twice_its_weights_per_token_and_its_attention() -> None:
    model, examples = tiny("tiny/qwen2", "text-to-sql")
    batch = examples.batch(torch.arange(N), CPU)
    with torch.inference_mode(), flops.counting() as found:
        model(**batch.inputs)
    rows, length = batch.inputs["input_ids"].shape  # type: ignore[attr-defined]
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    # Scores of each two places, and the values they weigh.
    attention = model.config.num_hidden_layers * 4 * rows * length**2 * model.config.hidden_size
    assert dict(found) == {"float32": 2 * weights * rows * length + attention}
    assert found["float32"] == pytest.approx(2 * model.num_parameters() * rows * length, rel=0.15)


def test_gradient_checkpointing_counts_the_layers_it_computes_again() -> None:
    model, examples = tiny("tiny/qwen2", "text-to-sql")
    batch = examples.batch(torch.arange(N), CPU)
    rows, length = batch.inputs["input_ids"].shape  # type: ignore[attr-defined]
    with torch.inference_mode(), flops.counting() as forward:
        model(**batch.inputs)
    # Not the head, and of each layer not its last product, whose result no gradient needs.
    last = [layer.mlp.down_proj for layer in model.model.layers]
    left_out = 2 * rows * length * sum(module.weight.numel() for module in (model.lm_head, *last))
    plain, again = of_training(model, examples), of_training(model, examples, gradient_checkpointing=True)
    assert plain is not None
    assert again is not None
    assert again.by_format["float32"] - plain.by_format["float32"] == forward["float32"] - left_out


def test_tokens_of_the_example_are_its_units_where_there_are_tokens() -> None:
    model, examples = tiny("tiny/t5", "text-to-sql")
    found = of_training(model, examples)
    assert found is not None
    assert found.units == examples.batch(torch.arange(N), CPU).tokens


def test_writing_answers_is_counted_also_after_a_fine_tune_with_gradient_checkpointing() -> None:
    model, examples = tiny("tiny/qwen2", "text-to-sql")
    assert of_training(model, examples, gradient_checkpointing=True) is not None
    with torch.inference_mode(), flops.counting() as found:
        answers = examples.answers(model.eval(), torch.arange(1), CPU)
    assert answers.tokens is not None
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    head = model.lm_head.weight.numel()
    # The head is asked about no token of the prompt but its last, and the last token that is written is not read.
    assert 2 * (weights - head) * (answers.tokens - 1) < found["float32"] < 2.5 * weights * answers.tokens


def test_counting_leaves_model_and_chance_as_they_were() -> None:
    model = Classifier(nn.Linear(WIDTH, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5), nn.Linear(HIDDEN, CLASSES))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert of_training(model) is not None
    assert torch.equal(torch.rand(4), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


# Scaled


def result(samples: int, tokens: int | None) -> StepResult:
    return StepResult(step=1, steps=2, samples=samples, loss=None, tokens=tokens)


def test_steps_are_tallied_on_their_way_in_tokens_where_there_are_some() -> None:
    seen: list[StepResult] = []
    tally = Tally()
    on_step = tally.noting(seen.append)
    on_step(result(4, None))
    assert tally.units == 4
    on_step(result(2, 30))
    on_step(result(2, 60))
    assert (tally.samples, tally.tokens, tally.units, len(seen)) == (8, 90, 90, 3)


def test_a_phase_takes_what_its_example_took_in_proportion_to_its_units_and_ranks_are_told_so() -> None:
    found = Flops(by_format={"float32": 600, "bfloat16": 30}, units=30)
    assert Flops.from_text(found.to_text()) == found
    assert found.of(Tally(samples=2, tokens=45)) == {"float32": 900.0, "bfloat16": 45.0}
    assert found.of(Tally(samples=3)) == {"float32": 60.0, "bfloat16": 3.0}
    assert found.of(Tally()) == {"float32": 0.0, "bfloat16": 0.0}
