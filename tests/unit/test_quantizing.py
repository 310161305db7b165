"""Base models in 8 and 4 bits: what they weigh logically, what trains on them, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from workers.contract import Adapter, Training
from workers.errors import JobError
from workers.leaving import Leaving, Left
from workers.tasks import load_task
from workers.tasks.data import TaskData
from workers.training.adapters import adapt, count_parameters, load_saved, save
from workers.training.checkpoint import Checkpoints
from workers.training.families import base_of
from workers.training.families.base import Base
from workers.training.group import Group
from workers.training.keeping import Keeping
from workers.training.load import prepare
from workers.training.loop import fit, predict
from workers.training.models import MODELS
from workers.training.quantizing import check, keep, loading_of, quantized
from workers.training.ranks import Ranks
from workers.training.steps import StepResult

CPU = torch.device("cpu")
QWEN = MODELS["tiny/qwen2"]
BITS = ("8bit", "4bit")
LORA = Adapter(method="lora", rank=4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    prepare(1, 0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> TaskData:
    task = load_task("text-to-sql", None, seed=0)
    assert task.source is not None
    return dataclasses.replace(
        task, source=task.source.first(40), train=task.train.first(24), test=task.test.first(4), longest_answer=6
    )


@pytest.fixture(scope="module")
def base(data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Path]:
    """A base model, and the folder where it is kept."""
    made = base_of(("text-generation",), QWEN, data, seed=0)
    folder = tmp_path_factory.mktemp("kept") / "base"
    keep(made.model, folder)
    return made, folder


def ignore(result: StepResult) -> None:
    """Who does not care about steps."""


def test_without_bitsandbytes_the_job_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        JobError, match=r"4bit needs the package bitsandbytes; pip install 'wattledger\[quantization\]'"
    ):
        loading_of("4bit", CPU)
    assert loading_of("none", CPU) == {}


@pytest.mark.parametrize(
    ("capability", "bf16", "computed"),
    [
        (None, False, torch.float32),
        (None, True, torch.bfloat16),
        ((8, 0), False, torch.bfloat16),
        ((7, 5), False, torch.float16),
    ],
)
def test_four_bits_are_computed_in_bfloat16_where_it_is_asked_for_or_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, bf16: bool, computed: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    device = CPU if capability is None else torch.device("cuda", 0)
    config = loading_of("4bit", device, bf16=bf16)["quantization_config"]
    assert config.bnb_4bit_compute_dtype == computed  # type: ignore[attr-defined]


def test_four_bits_train_in_bf16(base: tuple[Base, Path], data: TaskData) -> None:
    losses: dict[bool, list[float | None]] = {True: [], False: []}
    for bf16, seen in losses.items():
        torch.manual_seed(0)
        model = adapt(quantized("text-generation", base[1], "4bit", CPU, bf16=bf16), LORA, QWEN)
        training = Training(batch_size=8, bf16=bf16, gradient_checkpointing=bf16)
        fit(
            model,
            base[0].examples(data.train),
            training,
            seed=0,
            device=CPU,
            on_step=lambda result, record=seen.append: record(result.loss),
        )
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=2e-2)


@pytest.mark.parametrize("bits", BITS)
def test_a_model_of_which_nothing_can_be_quantised_is_refused(base: tuple[Base, Path], bits: str) -> None:
    with pytest.raises(JobError, match=rf"quantization {bits} found no linear layer to quantise in a qwen2 model"):
        check(base[0].model, bits)


@pytest.mark.parametrize("bits", BITS)
def test_quantised_weights_are_not_fine_tuned_in_full(base: tuple[Base, Path], bits: str) -> None:
    model = quantized("text-generation", base[1], bits, CPU)
    with pytest.raises(JobError, match=r"quantised weights cannot be trained.*Set adapter\.method: lora"):
        adapt(model, Adapter(method="full"), QWEN)


def test_a_base_that_is_not_kept_is_missed(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be loaded"):
        quantized("text-generation", tmp_path / "gone", "4bit", CPU)


@pytest.mark.parametrize("bits", BITS)
def test_a_quantised_model_counts_as_many_parameters_as_the_one_it_was(base: tuple[Base, Path], bits: str) -> None:
    whole, model = base[0].model, quantized("text-generation", base[1], bits, CPU)
    assert count_parameters(model).total == count_parameters(whole).total
    stored = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert stored < 0.75 * sum(parameter.numel() * parameter.element_size() for parameter in whole.parameters())
    adapted = count_parameters(adapt(model, LORA, QWEN))
    plain = count_parameters(adapt(base_copy(base), LORA, QWEN))
    assert (adapted.trainable, adapted.total) == (plain.trainable, plain.total)


def base_copy(base: tuple[Base, Path]) -> torch.nn.Module:
    return type(base[0].model).from_pretrained(base[1])


@pytest.mark.parametrize("bits", BITS)
def test_a_quantised_model_trains_the_same_whether_or_not_it_answered_before(
    base: tuple[Base, Path], data: TaskData, bits: str
) -> None:
    losses: dict[bool, list[float | None]] = {True: [], False: []}
    for answers_first, seen in losses.items():
        torch.manual_seed(0)
        model = quantized("text-generation", base[1], bits, CPU)
        if answers_first:
            predict(model, base[0].examples(data.test), batch_size=4, device=CPU, on_step=ignore)
        examples, training = base[0].examples(data.train), Training(batch_size=8)
        record = seen.append
        fit(
            adapt(model, LORA, QWEN),
            examples,
            training,
            seed=0,
            device=CPU,
            on_step=lambda result, record=record: record(result.loss),
        )
    assert losses[True] == losses[False]
    assert len(losses[True]) == 3


class Attempt:
    """One attempt at a fine-tune of the kept base, as far as it comes."""

    def __init__(
        self, base: tuple[Base, Path], data: TaskData, folder: Path, bits: str, *, leave_after: int | None = None
    ) -> None:
        checkpoints = Checkpoints(folder, digest="this job", attempt=1)
        self.found, _ = checkpoints.newest()
        torch.manual_seed(0)
        self.model = adapt(quantized("text-generation", base[1], bits, CPU), LORA, QWEN)
        leaving = Leaving()
        keeping = Keeping(
            checkpoints=checkpoints,
            group=Group(Ranks()),
            leaving=leaving,
            found=self.found,
            scores={},
            every_steps=None,
            seed=0,
            go_on=lambda: None,
        )

        def count(result: StepResult) -> None:
            if result.step == leave_after:
                leaving.ask(10, None)

        training = Training(epochs=2, batch_size=8)
        with contextlib.suppress(Left), leaving.between_steps():
            fit(
                self.model,
                base[0].examples(data.train),
                training,
                seed=0,
                device=CPU,
                on_step=count,
                keeper=keeping,
            )


@pytest.mark.parametrize("bits", BITS)
def test_a_fine_tune_of_a_quantised_model_that_was_cut_ends_as_if_it_had_not_been(
    base: tuple[Base, Path], data: TaskData, tmp_path: Path, bits: str
) -> None:
    whole = Attempt(base, data, tmp_path / "whole", bits).model.state_dict()
    Attempt(base, data, tmp_path / "cut", bits, leave_after=3)
    again = Attempt(base, data, tmp_path / "cut", bits)
    assert again.found is not None
    assert again.found.step == 3
    ours = again.model.state_dict()
    assert [key for key, value in whole.items() if "lora_" in key and not torch.equal(value, ours[key])] == []


@pytest.mark.parametrize("bits", BITS)
def test_lora_on_a_quantised_model_lowers_the_loss_and_its_adapter_can_be_taken_up(
    base: tuple[Base, Path], data: TaskData, tmp_path: Path, bits: str
) -> None:
    losses: list[float | None] = []
    model = adapt(quantized("text-generation", base[1], bits, CPU), LORA, QWEN)
    training = Training(epochs=4, batch_size=8, learning_rate=1e-2)
    examples = base[0].examples(data.train)
    fit(model, examples, training, seed=0, device=CPU, on_step=lambda result: losses.append(result.loss))
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < 0.9 * losses[0]
    save(model, tmp_path)
    again = load_saved(quantized("text-generation", base[1], bits, CPU), tmp_path, device=CPU)
    test = base[0].examples(data.test)
    one, other = (predict(of, test, batch_size=4, device=CPU, on_step=ignore) for of in (model, again))
    assert one == other
