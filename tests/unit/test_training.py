"""What an attempt trains: base models, adapters, the loop. One thread, tiny models, the real libraries."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageClassification

from workers.contract import Adapter, Training
from workers.errors import JobError
from workers.quality.classification import score
from workers.tasks import load_task
from workers.tasks.data import Images, Split
from workers.training.adapters import ParameterCount, adapt, count_parameters, load_saved, save
from workers.training.examples import Answers
from workers.training.families import base_of
from workers.training.families.images import ImageExamples
from workers.training.load import build_base, fit_source, prepare
from workers.training.loop import fit, predict
from workers.training.models import MODELS, ModelInfo
from workers.training.precision import check_bf16
from workers.training.steps import StepResult, steps_of

CPU = torch.device("cpu")
VIT = MODELS["tiny/vit"]
CONVNEXT = MODELS["tiny/convnext"]
IMAGES = [name for name, info in MODELS.items() if info.config.get("num_channels") == 1]
"""Those that the registry itself makes for digits; how others take their pictures' sizes is in test_vision."""
LORA = Adapter(method="lora", rank=4)


pytestmark = pytest.mark.usefixtures("one_thread")


def ignore(result: StepResult) -> None:
    """Who does not care about steps."""


def noise(samples: int, seed: int = 0) -> Images:
    random = np.random.default_rng(seed)
    return Split(
        inputs=random.uniform(-1, 1, (samples, 1, 8, 8)).astype(np.float32),
        labels=random.integers(0, 10, samples),
    )


class Linear(nn.Module):
    """The smallest classifier that speaks as transformers' do; ``dropout`` tells train from eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.modes: list[bool] = []

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        self.modes.append(self.training)
        return SimpleNamespace(logits=self.layer(pixel_values.flatten(1)))


class OutOfMemory(Linear):
    """A device that is full, as torch reports one."""

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def losses_of(seed: int, training: Training) -> list[float | None]:
    model, losses = build_base(VIT, classes=10, seed=0), []
    fit(
        model,
        ImageExamples(noise(40)),
        training,
        seed=seed,
        device=CPU,
        on_step=lambda result: losses.append(result.loss),
    )
    return losses


# Building a base model


@pytest.mark.parametrize(
    ("info", "fact"),
    [
        (dataclasses.replace(VIT, architecture="vitt"), "Unrecognized model identifier: vitt"),
        (dataclasses.replace(VIT, architecture="bert", config={}), "Unrecognized configuration class"),
        (dataclasses.replace(VIT, config={**VIT.config, "hiden_size": 3}), "its configuration has no hiden_size"),
        (dataclasses.replace(VIT, config={**VIT.config, "hidden_size": "64"}), "hidden_size"),
        (dataclasses.replace(VIT, config={**VIT.config, "patch_size": 0}), "ZeroDivisionError"),
        (dataclasses.replace(VIT, config={**VIT.config, "hidden_act": "nope"}), "KeyError: 'nope'"),
        (dataclasses.replace(CONVNEXT, config={**CONVNEXT.config, "depths": [1]}), "IndexError"),
        (dataclasses.replace(CONVNEXT, config={**CONVNEXT.config, "depths": None, "hidden_sizes": None}), "TypeError"),
        (dataclasses.replace(VIT, config={**VIT.config, "hidden_size": -1}), "RuntimeError"),
    ],
    ids=[
        "architecture",
        "no classifier",
        "unknown key",
        "type",
        "zero",
        "activation",
        "lengths",
        "nothing",
        "negative",
    ],
)
def test_a_configuration_that_fits_no_model_is_a_fact_and_a_remedy(info: ModelInfo, fact: str) -> None:
    with pytest.raises(JobError) as caught:
        build_base(info, classes=10, seed=0)
    message = str(caught.value)
    assert message.startswith(f"no {info.architecture} model can be built: ")
    assert fact in message
    assert message.endswith("Correct the architecture or config of the model's entry in the registry of models.")
    assert len(message) < 500


@pytest.mark.parametrize("name", IMAGES)
def test_a_base_model_follows_from_its_seed(name: str) -> None:
    one, same, other = (weights(build_base(MODELS[name], classes=10, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_building_a_model_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_base(VIT, classes=10, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", IMAGES)
def test_a_base_model_has_one_output_for_each_class(name: str) -> None:
    model = build_base(MODELS[name], classes=7, seed=0)
    assert model(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape == (2, 7)


def test_prepare_bounds_the_threads_seeds_torch_and_names_a_device() -> None:
    device = prepare(1, seed=3)
    drawn = torch.rand(2)
    assert prepare(1, seed=3) == device
    assert torch.equal(torch.rand(2), drawn)
    assert torch.get_num_threads() == 1
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")


# Adapting it


@pytest.mark.parametrize(
    ("adapter", "fact"),
    [
        (Adapter(method="lora", targets=("q_proj", "querry")), "LoRA has no module to attach to: querry."),
        (Adapter(method="lora", targets=("proj",)), "LoRA has no module to attach to: proj."),
        (Adapter(method="lora", targets=("layernorm_before",)), "LoRA of rank 8 does not fit layernorm_before: "),
    ],
    ids=["typo beside a match", "part of a name", "not a layer with weights to adapt"],
)
def test_targets_that_lora_cannot_take_come_with_those_it_can(adapter: Adapter, fact: str) -> None:
    with pytest.raises(JobError) as caught:
        adapt(build_base(VIT, classes=10, seed=0), adapter, VIT)
    assert str(caught.value).startswith(fact)
    assert str(caught.value).endswith(
        "adapter.targets among: classifier, fc1, fc2, k_proj, o_proj, projection, q_proj, v_proj."
    )


def test_a_rank_that_does_not_divide_into_a_convolutions_groups_is_refused_with_the_reason() -> None:
    with pytest.raises(JobError, match=r"LoRA of rank 4 does not fit dwconv: .*groups=32.* Change adapter\.rank"):
        adapt(build_base(CONVNEXT, classes=10, seed=0), Adapter(method="lora", rank=4, targets=("dwconv",)), CONVNEXT)


def test_an_unnamed_layer_of_a_list_is_offered_with_the_lists_name() -> None:
    with pytest.raises(JobError, match=r"among: classifier, downsampling_layer\.1, dwconv, patch_embeddings, pwconv1"):
        adapt(build_base(CONVNEXT, classes=10, seed=0), Adapter(method="lora", targets=("x",)), CONVNEXT)


@pytest.mark.parametrize("rank", [1, 8])
def test_lora_on_the_transformer_trains_rank_times_in_plus_out_of_each_target(rank: int) -> None:
    base = build_base(VIT, classes=10, seed=0)
    before = count_parameters(base).total
    count = count_parameters(adapt(base, Adapter(method="lora", rank=rank), VIT))
    hidden, inner, layers = 64, 192, 3
    assert count.trainable == rank * layers * (4 * (hidden + hidden) + 2 * (hidden + inner))
    assert count.total == before + count.trainable


def test_lora_on_a_depthwise_convolution_fits_at_a_rank_its_groups_divide() -> None:
    adapter = Adapter(method="lora", rank=64, targets=("dwconv",))
    assert count_parameters(adapt(build_base(CONVNEXT, classes=10, seed=0), adapter, CONVNEXT)).trainable > 0


def test_lora_of_rank_8_has_these_sizes() -> None:
    counts = {
        name: count_parameters(adapt(build_base(info, classes=10, seed=0), Adapter(method="lora"), info))
        for name, info in MODELS.items()
        if name in IMAGES
    }
    assert counts["tiny/vit"] == ParameterCount(trainable=24_576, total=152_010)
    assert counts["tiny/convnext"] == ParameterCount(trainable=17_920, total=146_634)


def test_no_adapter_freezes_every_weight_and_full_frees_them_all() -> None:
    base = build_base(VIT, classes=10, seed=0)
    total = sum(parameter.numel() for parameter in base.parameters())
    assert count_parameters(adapt(base, Adapter(method="none"), VIT)) == ParameterCount(trainable=0, total=total)
    assert count_parameters(adapt(base, Adapter(method="full"), VIT)) == ParameterCount(trainable=total, total=total)


def test_the_head_stays_frozen_unless_it_is_targeted() -> None:
    plain = adapt(build_base(VIT, classes=10, seed=0), LORA, VIT)
    assert not [name for name, value in plain.named_parameters() if value.requires_grad and "classifier" in name]
    headed = adapt(build_base(VIT, classes=10, seed=0), LORA.model_copy(update={"targets": ("classifier",)}), VIT)
    assert count_parameters(headed).trainable == LORA.rank * (64 + 10)


@pytest.mark.parametrize("name", IMAGES)
def test_a_fresh_lora_changes_no_answer(name: str) -> None:
    base, inputs = build_base(MODELS[name], classes=10, seed=0), torch.from_numpy(noise(6).inputs)
    with torch.inference_mode():
        before = base(pixel_values=inputs).logits
        after = adapt(base, LORA, MODELS[name])(pixel_values=inputs).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize(("alpha", "expected"), [(None, 2.0), (6.0, 1.5), (4.5, 1.125)])
def test_alpha_over_rank_scales_what_lora_adds_and_defaults_to_twice_the_rank(
    alpha: float | None, expected: float
) -> None:
    model = adapt(build_base(VIT, classes=10, seed=0), LORA.model_copy(update={"alpha": alpha}), VIT)
    scales = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
    assert scales == {expected}


# Counting


class Packed(nn.Parameter):
    """A weight as bitsandbytes holds it in 4 bits: two to a byte, its true shape in ``quant_state``.

    Models the two attributes that are read; quantises nothing.
    """

    quant_state: SimpleNamespace

    @classmethod
    def of(cls, rows: int, columns: int, *, storage: torch.dtype = torch.uint8, shaped: bool = True) -> nn.Module:
        size = rows * columns // (2 * storage.itemsize)
        weight = cls(torch.zeros(size, 1).to(storage), requires_grad=False)
        weight.quant_state = SimpleNamespace(shape=torch.Size([rows, columns])) if shaped else SimpleNamespace()
        module = nn.Module()
        module.weight = weight
        return module


@pytest.mark.parametrize("shaped", [True, False], ids=["shape known", "shape unknown"])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16], ids=str)
def test_a_packed_weight_counts_its_logical_elements(storage: torch.dtype, shaped: bool) -> None:
    module = Packed.of(64, 48, storage=storage, shaped=shaped)
    assert sum(parameter.numel() for parameter in module.parameters()) < 64 * 48
    assert count_parameters(module) == ParameterCount(trainable=0, total=64 * 48)


def test_packed_and_plain_weights_add_up() -> None:
    model = nn.Sequential(Packed.of(64, 64), nn.Linear(64, 10))
    assert count_parameters(model) == ParameterCount(trainable=650, total=64 * 64 + 650)


def test_a_weight_of_which_a_rank_holds_a_part_counts_whole() -> None:
    model = nn.Linear(64, 10)
    model.weight.data = torch.empty(0)
    model.weight.ds_numel = 640  # As DeepSpeed marks it.
    assert count_parameters(model) == ParameterCount(trainable=650, total=650)


# Training


def test_a_model_that_is_all_frozen_is_refused_with_the_adapters_that_train() -> None:
    model = Linear().requires_grad_(False)
    with pytest.raises(JobError, match=r"every parameter is frozen.*set adapter\.method to lora or full"):
        fit(model, ImageExamples(noise(4)), Training(), seed=0, device=CPU, on_step=ignore)


def test_a_split_without_samples_is_refused() -> None:
    with pytest.raises(JobError, match=r"the training split has no samples; choose another dataset"):
        fit(Linear(), ImageExamples(noise(0)), Training(), seed=0, device=CPU, on_step=ignore)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "nan"), (math.inf, "nan|inf")])
def test_a_loss_that_is_not_finite_ends_the_fit_before_it_spoils_a_weight(value: float, word: str) -> None:
    model, split, seen = Linear(), noise(8), []
    split.inputs[:] = value
    before = weights(model)
    with pytest.raises(
        JobError, match=rf"the loss became ({word}) at step 1 of 2; lower training\.learning_rate \(now 0\.5\)"
    ):
        fit(
            model,
            ImageExamples(split),
            Training(batch_size=4, learning_rate=0.5),
            seed=0,
            device=CPU,
            on_step=seen.append,
        )
    assert seen == []
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def train(model: nn.Module) -> None:
    fit(model, ImageExamples(noise(8)), Training(batch_size=4), seed=0, device=CPU, on_step=ignore)


def answer(model: nn.Module) -> None:
    predict(model, ImageExamples(noise(8)), batch_size=4, device=CPU, on_step=ignore)


@pytest.mark.parametrize("work", [train, answer])
@pytest.mark.parametrize("mode", [True, False], ids=["train mode", "eval mode"])
def test_a_device_without_memory_is_a_remedy_and_leaves_the_models_mode(
    work: Callable[[nn.Module], None],
    mode: bool,
) -> None:
    model = OutOfMemory().train(mode)
    with pytest.raises(JobError, match=r"out of memory at a batch size of 4; lower the batch size"):
        work(model)
    assert model.training is mode


@pytest.mark.parametrize(("work", "inside"), [(train, True), (answer, False)])
@pytest.mark.parametrize("mode", [True, False], ids=["train mode", "eval mode"])
def test_a_model_trains_in_train_mode_and_answers_in_eval_mode_and_keeps_its_own(
    work: Callable[[nn.Module], None],
    inside: bool,
    mode: bool,
) -> None:
    model = Linear().train(mode)
    work(model)
    assert set(model.modes) == {inside}
    assert model.training is mode


@pytest.mark.parametrize(
    ("training", "samples", "expected"),
    [
        (Training(epochs=3, batch_size=4), 8, 6),
        (Training(epochs=3, batch_size=4), 9, 9),
        (Training(epochs=1, batch_size=64), 5, 1),
        (Training(epochs=3, batch_size=4, max_steps=4), 8, 4),
        (Training(epochs=1, batch_size=4, max_steps=100), 8, 2),
        (Training(), 0, 0),
    ],
)
def test_steps_are_batches_of_every_epoch_up_to_the_limit(training: Training, samples: int, expected: int) -> None:
    assert steps_of(training, samples) == expected


def test_every_step_is_told_with_its_samples_and_loss() -> None:
    seen: list[StepResult] = []
    training = Training(epochs=2, batch_size=4)
    fit(Linear(), ImageExamples(noise(10)), training, seed=0, device=CPU, on_step=seen.append)
    assert [(result.step, result.steps, result.samples) for result in seen] == [
        (1, 6, 4),
        (2, 6, 4),
        (3, 6, 2),
        (4, 6, 4),
        (5, 6, 4),
        (6, 6, 2),
    ]
    assert all(result.loss is not None and result.loss > 0 for result in seen)
    assert len(seen) == steps_of(training, 10)


def test_an_epoch_sees_every_sample_once() -> None:
    seen: list[float] = []

    class Watched(Linear):
        def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
            seen.extend(pixel_values[:, 0, 0, 0].tolist())
            return super().forward(pixel_values)

    split = noise(11)
    fit(Watched(), ImageExamples(split), Training(batch_size=4, epochs=2), seed=0, device=CPU, on_step=ignore)
    first, second = seen[:11], seen[11:]
    assert sorted(first) == sorted(second) == sorted(split.inputs[:, 0, 0, 0].tolist())
    assert first != second


def test_the_same_seed_trains_the_same_and_another_does_not() -> None:
    training = Training(batch_size=16)
    assert losses_of(1, training) == losses_of(1, training)
    assert losses_of(1, training) != losses_of(2, training)


def test_a_fit_lowers_the_loss() -> None:
    losses = losses_of(0, Training(epochs=15, batch_size=20))
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < 0.8 * losses[0]


def test_fine_tuning_a_lora_changes_the_lora_and_nothing_else() -> None:
    model = adapt(build_base(VIT, classes=10, seed=0), LORA, VIT)
    before = weights(model)
    fit(model, ImageExamples(noise(16)), Training(batch_size=8), seed=0, device=CPU, on_step=ignore)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_" in name}


# Bfloat16, and memory


@pytest.mark.parametrize(("capability", "word"), [((7, 5), "7.5"), ((7, 0), "7.0")], ids=["T4", "V100"])
def test_a_gpu_that_emulates_bfloat16_is_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], word: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old One")
    with pytest.raises(JobError, match=rf"bfloat16, and Old One \(capability {word}\) does not\. Set training\.bf16"):
        check_bf16(torch.device("cuda", 0))


def test_a_newer_gpu_and_a_cpu_compute_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_bf16(torch.device("cuda", 0))
    check_bf16(CPU)


def test_in_bf16_products_are_computed_in_bfloat16_and_weights_stay_in_float32() -> None:
    seen: dict[bool, list[float | None]] = {}
    for bf16 in (False, True):
        computed: set[torch.dtype] = set()
        model = build_base(VIT, classes=10, seed=0)
        model.classifier.register_forward_hook(lambda *call, seen=computed: seen.add(call[2].dtype))
        record = seen.setdefault(bf16, []).append
        training = Training(batch_size=16, bf16=bf16)
        fit(
            model,
            ImageExamples(noise(40)),
            training,
            seed=0,
            device=CPU,
            on_step=lambda result, record=record: record(result.loss),
        )
        assert computed == {torch.bfloat16 if bf16 else torch.float32}
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert seen[True] != seen[False]
    assert seen[True] == pytest.approx(seen[False], rel=2e-2)


def test_weights_that_come_in_bfloat16_are_trained_in_float32() -> None:
    full = adapt(build_base(VIT, classes=10, seed=0).bfloat16(), Adapter(method="full"), VIT)
    assert {parameter.dtype for parameter in full.parameters()} == {torch.float32}
    lora = adapt(build_base(VIT, classes=10, seed=0).bfloat16(), LORA, VIT)
    kept = {(parameter.requires_grad, parameter.dtype) for parameter in lora.parameters()}
    assert kept == {(True, torch.float32), (False, torch.bfloat16)}
    losses: list[float | None] = []
    fit(
        lora,
        ImageExamples(noise(40)),
        Training(batch_size=20, epochs=8, bf16=True, learning_rate=1e-2),
        seed=0,
        device=CPU,
        on_step=lambda result: losses.append(result.loss),
    )
    assert losses[-1] < losses[0]  # type: ignore[operator]


def test_a_model_that_cannot_compute_again_is_refused_with_what_else_saves_memory() -> None:
    for model, name in ((Linear(), "Linear"), (build_base(CONVNEXT, classes=10, seed=0), "convnext")):
        with pytest.raises(
            JobError, match=rf"a {name} model cannot do gradient checkpointing; .*accumulation_steps save"
        ):
            fit(
                model,
                ImageExamples(noise(8)),
                Training(gradient_checkpointing=True),
                seed=0,
                device=CPU,
                on_step=ignore,
            )


@pytest.mark.parametrize("adapter", [LORA, Adapter(method="full")], ids=["lora", "full"])
def test_checkpointed_gradients_are_those_of_kept_activations_and_are_computed_again(adapter: Adapter) -> None:
    losses: dict[bool, list[float | None]] = {False: [], True: []}
    passes: dict[bool, int] = {}
    for again, seen in losses.items():
        torch.manual_seed(0)
        model = adapt(build_base(VIT, classes=10, seed=0), adapter, VIT)
        calls: list[int] = []
        layer = [module for module in model.modules() if isinstance(module, nn.LayerNorm)][1]
        layer.register_forward_hook(lambda *call, calls=calls: calls.append(1))
        training = Training(batch_size=16, gradient_checkpointing=again)
        record = seen.append
        fit(
            model,
            ImageExamples(noise(40)),
            training,
            seed=0,
            device=CPU,
            on_step=lambda result, record=record: record(result.loss),
        )
        passes[again] = len(calls)
    assert losses[True] == losses[False]
    assert (passes[False], passes[True]) == (3, 6)


# Micro-batches


@pytest.mark.parametrize("count", [2, 3, 16])
def test_a_batch_in_micro_batches_gives_the_weights_of_the_whole_one(count: int) -> None:
    told: dict[int, list[StepResult]] = {}
    trained: dict[int, dict[str, torch.Tensor]] = {}
    for steps in (1, count):
        model = Linear()
        model.load_state_dict({"layer.weight": torch.full((10, 64), 0.01), "layer.bias": torch.zeros(10)})
        training = Training(batch_size=16, epochs=2, gradient_accumulation_steps=steps)
        seen = told.setdefault(steps, [])
        fit(model, ImageExamples(noise(40)), training, seed=0, device=CPU, on_step=seen.append)
        trained[steps] = weights(model)
        assert len(model.modes) == 6 * steps
    assert [(each.step, each.steps, each.samples) for each in told[count]] == [
        (each.step, each.steps, each.samples) for each in told[1]
    ]
    assert [each.loss for each in told[count]] == pytest.approx([each.loss for each in told[1]], rel=1e-5)
    assert all(torch.allclose(trained[count][name], value, atol=1e-5) for name, value in trained[1].items())


def test_micro_batches_weigh_by_the_tokens_of_their_answers() -> None:
    task = load_task("text-to-sql", None, seed=0)
    data = dataclasses.replace(task, train=task.train.first(12), test=task.test.first(1))
    losses: dict[int, list[float | None]] = {}
    tokens: dict[int, list[int | None]] = {}
    for steps in (1, 4):
        torch.manual_seed(0)
        base = base_of(("text-generation",), MODELS["tiny/qwen2"], data, seed=0)
        examples = base.examples(data.train)
        assert len({examples.units(torch.tensor([place])) for place in range(12)}) > 1
        seen: list[StepResult] = []
        training = Training(batch_size=8, epochs=2, gradient_accumulation_steps=steps)
        fit(base.model, examples, training, seed=0, device=CPU, on_step=seen.append)
        losses[steps], tokens[steps] = [each.loss for each in seen], [each.tokens for each in seen]
    assert losses[4] == pytest.approx(losses[1], rel=1e-4)
    assert tokens[4] == tokens[1]


# Early stopping


class Watching(Linear):
    """Notes which samples it saw in train mode, and which in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[bool, set[float]] = {True: set(), False: set()}

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        self.seen[self.training].update(pixel_values[:, 0, 0, 0].tolist())
        return super().forward(pixel_values)


def stopping(**changed: object) -> Training:
    fields = {"epochs": 20, "batch_size": 9, "learning_rate": 0.1, "early_stopping_patience": 3}
    return Training.model_validate({**fields, **changed})


def test_one_sample_cannot_be_trained_on_and_held_out() -> None:
    with pytest.raises(JobError, match=r"has one sample; choose another dataset, or remove training\.early_stopping"):
        fit(Linear(), ImageExamples(noise(1)), stopping(), seed=0, device=CPU, on_step=ignore)


def test_a_tenth_that_follows_from_the_seed_is_held_out_and_never_trained_on() -> None:
    held = {}
    for seed in (0, 0, 1):
        model, split = Watching(), noise(41)
        fit(model, ImageExamples(split), stopping(), seed=seed, device=CPU, on_step=ignore)
        assert not model.seen[True] & model.seen[False]
        assert model.seen[True] | model.seen[False] == set(split.inputs[:, 0, 0, 0].tolist())
        assert len(model.seen[False]) == 5
        assert held.setdefault(seed, model.seen[False]) == model.seen[False]
    assert held[0] != held[1]


def test_training_ends_when_the_held_out_loss_is_no_better_for_as_many_looks_and_the_best_weights_are_kept() -> None:
    torch.manual_seed(0)
    model, seen, kept = Linear(), [], {}

    def keep(result: StepResult) -> None:
        seen.append(result)
        kept[result.step] = weights(model)

    training = stopping()
    fit(model, ImageExamples(noise(40)), training, seed=0, device=CPU, on_step=keep)
    looks = {result.step: result.eval_loss for result in seen if result.eval_loss is not None}
    # 36 of 40 samples are four batches.
    assert list(looks) == list(range(4, len(seen) + 1, 4))
    best = min(looks, key=lambda step: looks[step])
    assert len(seen) == best + 3 * 4 < steps_of(training, 40) == 80
    assert all(torch.equal(value, kept[best][name]) for name, value in weights(model).items())
    assert not all(torch.equal(value, kept[len(seen)][name]) for name, value in weights(model).items())


def test_looks_come_every_so_many_steps_and_after_the_last() -> None:
    seen: list[StepResult] = []
    training = stopping(eval_steps=3, max_steps=7, learning_rate=1e-4)
    fit(Linear(), ImageExamples(noise(40)), training, seed=0, device=CPU, on_step=seen.append)
    assert [result.step for result in seen if result.eval_loss is not None] == [3, 6, 7]


def test_without_early_stopping_nothing_is_held_out() -> None:
    model, seen = Watching(), []
    fit(model, ImageExamples(noise(40)), Training(batch_size=9), seed=0, device=CPU, on_step=seen.append)
    assert (len(model.seen[True]), len(model.seen[False])) == (40, 0)
    assert [result.eval_loss for result in seen] == [None] * 5


# Predicting


def test_no_inputs_have_no_answers_and_no_steps() -> None:
    seen: list[StepResult] = []
    answers = predict(Linear(), ImageExamples(noise(0)), batch_size=4, device=CPU, on_step=seen.append)
    assert (answers, seen) == ([], [])


def test_answers_are_the_likeliest_labels_in_order_however_they_are_batched() -> None:
    model, split = Linear(), noise(10)
    expected = model(torch.from_numpy(split.inputs)).logits.argmax(dim=1).tolist()
    for batch_size in (1, 4, 10, 64):
        assert predict(model, ImageExamples(split), batch_size=batch_size, device=CPU, on_step=ignore) == expected


def test_more_answers_than_examples_go_over_them_again() -> None:
    model, examples = Linear(), ImageExamples(noise(3))
    once = predict(model, examples, batch_size=2, device=CPU, on_step=ignore)
    seen: list[StepResult] = []
    assert predict(model, examples, batch_size=2, device=CPU, on_step=seen.append, count=7) == [*once, *once, once[0]]
    assert [result.samples for result in seen] == [2, 2, 2, 1]


def test_every_batch_is_told_with_its_samples_and_no_loss() -> None:
    seen: list[StepResult] = []
    predict(Linear(), ImageExamples(noise(10)), batch_size=4, device=CPU, on_step=seen.append)
    assert seen == [StepResult(step=i, steps=3, samples=n, loss=None) for i, n in ((1, 4), (2, 4), (3, 2))]


class Silent(ImageExamples):
    """Lets the model answer and reads nothing, so that it may be on a device that holds no values."""

    def answers(self, model: nn.Module, chosen: torch.Tensor, device: torch.device) -> Answers:
        model(pixel_values=torch.zeros(len(chosen), 1, 8, 8, device=device))
        return Answers(values=[None] * len(chosen))


def test_a_model_that_was_moved_to_another_device_to_answer_can_be_trained_there() -> None:
    model, elsewhere = Linear(), torch.device("meta")
    predict(model, Silent(noise(4)), batch_size=4, device=elsewhere, on_step=ignore)
    model(pixel_values=torch.zeros(4, 1, 8, 8, device=elsewhere, requires_grad=True)).logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


# Saving


def test_a_model_of_neither_library_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot save a Linear"):
        save(Linear(), tmp_path)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own, on loading
def test_a_saved_adapter_gives_the_same_answers_on_its_base(tmp_path: Path) -> None:
    model = adapt(build_base(VIT, classes=10, seed=0), LORA, VIT)
    split = noise(32)
    fit(model, ImageExamples(split), Training(epochs=4, batch_size=8), seed=0, device=CPU, on_step=ignore)
    save(model, tmp_path / "deep" / "adapter")
    assert {path.name for path in (tmp_path / "deep" / "adapter").iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    again = PeftModel.from_pretrained(build_base(VIT, classes=10, seed=0), str(tmp_path / "deep" / "adapter"))
    inputs = torch.from_numpy(split.inputs)
    with torch.inference_mode():
        assert torch.equal(again.eval()(pixel_values=inputs).logits, model.eval()(pixel_values=inputs).logits)


@pytest.mark.parametrize("method", ["none", "full"])
def test_a_model_without_an_adapter_is_saved_whole(tmp_path: Path, method: str) -> None:
    model = adapt(build_base(CONVNEXT, classes=10, seed=0), Adapter.model_validate({"method": method}), CONVNEXT)
    save(model, tmp_path)
    again = weights(AutoModelForImageClassification.from_pretrained(tmp_path))
    assert all(torch.equal(value, again[name]) for name, value in weights(model).items())


def test_nothing_is_saved_as_a_pickle(tmp_path: Path) -> None:
    for method in ("full", "lora"):
        adapter = Adapter.model_validate({"method": method})
        save(adapt(build_base(VIT, classes=10, seed=0), adapter, VIT), tmp_path / method)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_saved_weights_answer_on_another_copy_of_the_base_as_they_did(tmp_path: Path, method: str) -> None:
    adapter = Adapter.model_validate({"method": method, "rank": 4})
    model = adapt(build_base(VIT, classes=10, seed=0), adapter, VIT)
    split = noise(32)
    fit(model, ImageExamples(split), Training(epochs=4, batch_size=8), seed=0, device=CPU, on_step=ignore)
    save(model, tmp_path)
    again = load_saved(build_base(VIT, classes=10, seed=0), tmp_path, device=CPU)
    inputs = torch.from_numpy(split.inputs)
    with torch.inference_mode():
        assert torch.equal(again.eval()(pixel_values=inputs).logits, model.eval()(pixel_values=inputs).logits)


def test_weights_that_are_not_there_are_missed_and_nothing_else_is_loaded_for_them(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle, which may hold code")
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(JobError, match=r"there are no fine-tuned weights in .*\. Run the job that trains"):
            load_saved(build_base(VIT, classes=10, seed=0), folder, device=CPU)


def _cut_off(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


def _take_one_out(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    kept = load_file(path)
    kept.pop(next(iter(kept)))
    save_file(kept, path)


@pytest.mark.parametrize(
    ("method", "base", "spoil"),
    [
        ("full", CONVNEXT, lambda folder: None),
        ("lora", CONVNEXT, lambda folder: None),
        ("full", VIT, lambda folder: _cut_off(folder, "model.safetensors")),
        ("lora", VIT, lambda folder: _cut_off(folder, "adapter_model.safetensors")),
        ("lora", VIT, lambda folder: _cut_off(folder, "adapter_config.json")),
        ("lora", VIT, _take_one_out),
    ],
)
def test_weights_of_another_model_or_torn_ones_are_told_and_not_used(
    tmp_path: Path, method: str, base: ModelInfo, spoil: Callable[[Path], None]
) -> None:
    adapter = Adapter.model_validate({"method": method, "rank": 4})
    save(adapt(build_base(VIT, classes=10, seed=0), adapter, VIT), tmp_path)
    spoil(tmp_path)
    with pytest.raises(JobError, match=r"the fine-tuned weights in .* do not fit the model: .* Name a fine-tune"):
        load_saved(build_base(base, classes=10, seed=0), tmp_path, device=CPU)


# All of it


@pytest.mark.parametrize("name", IMAGES)
def test_a_short_fine_tune_beats_its_base_on_turned_digits(name: str) -> None:
    data, info = load_task("digits", None, seed=0), dataclasses.replace(MODELS[name], source_epochs=5)
    device = prepare(1, seed=0)
    model = build_base(info, classes=data.classes, seed=0)
    fit_source(model, info, ImageExamples(data.source), seed=0, device=device, on_step=ignore)

    def accuracy(of: nn.Module) -> float:
        answers = predict(of, ImageExamples(data.test), batch_size=64, device=device, on_step=ignore)
        return score("accuracy", data.test.labels, np.asarray(answers))

    base = accuracy(model)
    adapted = adapt(model, Adapter(method="lora", rank=8), info)
    training = Training(epochs=4, batch_size=64, learning_rate=8e-3)
    fit(adapted, ImageExamples(data.train), training, seed=0, device=device, on_step=ignore)
    assert base < 0.6
    assert accuracy(adapted) > base + 0.2


def test_a_gpu_that_torch_cannot_use_ends_the_job_rather_than_train_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(JobError, match=r"sees no CUDA device\. Install a CUDA build"):
        prepare(1, 0, holds_gpu=True)
