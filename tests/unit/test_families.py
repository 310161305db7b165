"""Families of models: how examples become batches with a loss, and how models answer. Tiny models, real libraries."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.few import few_of
from workers.contract import Adapter, Training, Trust
from workers.errors import JobError
from workers.quality.registry import evaluate, want_likelihoods
from workers.quality.scoring import Encoders, take_scores
from workers.tasks import load_task, task_info
from workers.tasks.data import Split, TaskData
from workers.training.adapters import adapt
from workers.training.examples import IGNORED, Batch
from workers.training.families import base_of, family_of
from workers.training.families.base import Base
from workers.training.hub import trusted
from workers.training.likelihood import log_probabilities
from workers.training.load import fit_source
from workers.training.loop import fit, predict
from workers.training.models import MODELS, model_info
from workers.training.steps import StepResult

CPU = torch.device("cpu")
PAIRS = {"tiny/qwen2": "text-to-sql", "tiny/llama": "text-to-sql", "tiny/t5": "text-to-sql", "tiny/bart": "text-to-sql"}
ALL = {**PAIRS, "tiny/bert": "text-classification"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> dict[str, TaskData]:
    return few_of(set(ALL.values()))


def built(data: dict[str, TaskData], name: str) -> Base:
    return base_of(task_info(ALL[name]).families, MODELS[name], data[ALL[name]], seed=0)


def ignore(result: StepResult) -> None:
    """Who does not care about steps."""


# What cannot be


def test_a_model_of_a_family_that_cannot_do_the_task_is_refused(data: dict[str, TaskData]) -> None:
    with pytest.raises(JobError, match=r"a seq2seq model cannot do this task; choose .* text-classification\."):
        base_of(("text-classification",), MODELS["tiny/t5"], data["text-classification"], seed=0)


@pytest.mark.parametrize("task", ["text-to-sql", "text-classification"])
def test_a_hub_that_cannot_be_reached_is_a_fact_and_a_remedy(
    data: dict[str, TaskData], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JobError, match=r"model nobody/nothing cannot be loaded: .* Give this node access to the hub"):
        base_of(task_info(task).families, model_info("nobody/nothing"), data[task], seed=0)


def test_a_folder_without_a_model_is_told(data: dict[str, TaskData], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"cannot be loaded: .* Check its name on the hub, or name a folder"):
        base_of(("text-generation", "seq2seq"), model_info(str(tmp_path)), data["text-to-sql"], seed=0)


def saved(base: Base, folder: Path, data: TaskData) -> str:
    """A model and its tokenizer in a folder, as save_pretrained leaves them."""
    from workers.training.families.tokenizing import tokenizer_for

    base.model.save_pretrained(folder)
    tokenizer_for(MODELS["tiny/t5"], data, ends=base.model.config.is_encoder_decoder).save_pretrained(folder)
    return str(folder)


def test_weights_in_a_pickle_alone_are_not_read(data: dict[str, TaskData], tmp_path: Path) -> None:
    base = built(data, "tiny/qwen2")
    name = saved(base, tmp_path, data["text-to-sql"])
    (tmp_path / "model.safetensors").unlink()
    torch.save(base.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(JobError, match=r"cannot be loaded: .*safetensors.* if you trust .* set trust\.pickle: true"):
        base_of(("text-generation",), model_info(name), data["text-to-sql"], seed=0)


def test_weights_in_a_pickle_are_read_where_the_job_trusts_them(data: dict[str, TaskData], tmp_path: Path) -> None:
    base, trust = built(data, "tiny/qwen2"), Trust(pickle=True)
    name = saved(base, tmp_path, data["text-to-sql"])
    (tmp_path / "model.safetensors").unlink()
    torch.save(base.model.state_dict(), tmp_path / "pytorch_model.bin")
    again = base_of(("text-generation",), model_info(name, trust), data["text-to-sql"], seed=1, loading=trusted(trust))
    before, after = base.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


CODE = """
from pathlib import Path

from transformers import Qwen2Config, Qwen2ForCausalLM

(Path(__file__).parent / "ran").touch()


class OwnConfig(Qwen2Config):
    model_type = "own"


class Own(Qwen2ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(data: dict[str, TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model whose code comes with it; transformers copies that to a folder of its own before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    name = saved(built(data, "tiny/qwen2"), tmp_path / "own-model", data["text-to-sql"])
    (Path(name) / "own.py").write_text(CODE)
    config = json.loads((Path(name) / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    (Path(name) / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": code}))
    return name


def test_code_that_comes_with_a_model_is_not_run(data: dict[str, TaskData], tmp_path: Path, with_code: str) -> None:
    with pytest.raises(JobError, match=r"cannot be loaded: .* read that code, and set trust\.remote_code: true"):
        base_of(task_info("text-to-sql").families, model_info(with_code), data["text-to-sql"], seed=0)
    assert not list(tmp_path.rglob("ran"))


def test_code_that_comes_with_a_model_is_run_where_the_job_trusts_it(
    data: dict[str, TaskData], tmp_path: Path, with_code: str
) -> None:
    trust = Trust(remote_code=True)
    info = model_info(with_code, trust)
    base = base_of(task_info("text-to-sql").families, info, data["text-to-sql"], seed=0, loading=trusted(trust))
    assert type(base.model).__name__ == "Own"
    assert list(tmp_path.rglob("ran"))


@pytest.mark.parametrize(("name", "family"), [("tiny/qwen2", "text-generation"), ("tiny/t5", "seq2seq")])
def test_a_model_in_a_folder_is_of_its_own_family_and_has_the_weights_that_were_saved(
    data: dict[str, TaskData], tmp_path: Path, name: str, family: str
) -> None:
    base, task = built(data, name), data["text-to-sql"]
    info = model_info(saved(base, tmp_path, task))
    assert family_of(task_info("text-to-sql").families, info) == family
    again = base_of(task_info("text-to-sql").families, info, task, seed=1)
    batch = base.examples(task.train).batch(torch.arange(3), CPU)
    with torch.inference_mode():
        assert torch.equal(base.model.eval()(**batch.inputs).logits, again.model.eval()(**batch.inputs).logits)
    # transformers may give the small tokenizer the rules of the architecture's own, so its answers are others.
    assert len(predict(again.model, again.examples(task.test), batch_size=4, device=CPU, on_step=ignore)) == 9
    adapted = adapt(again.model, Adapter(method="lora", rank=2), info)
    touched = {key.split(".lora_A")[0].rsplit(".", 1)[-1] for key in adapted.state_dict() if "lora_A" in key}
    assert "lm_head" not in touched
    assert len(touched) > 4, "without targets, LoRA is on every linear layer but the head"


# Batches


@pytest.mark.parametrize("name", ALL)
def test_a_loss_of_a_batch_is_the_weighted_sum_of_the_losses_of_its_parts(data: dict[str, TaskData], name: str) -> None:
    base, chosen = built(data, name), torch.arange(7)
    examples, model = base.examples(data[ALL[name]].train), base.model.eval()

    def loss(part: torch.Tensor) -> float:
        batch = examples.batch(part, CPU)
        with torch.inference_mode():
            return float(batch.loss(model(**batch.inputs)))

    parts = chosen.tensor_split(3)
    weights = [examples.units(part) / examples.units(chosen) for part in parts]
    assert sum(weights) == pytest.approx(1, rel=1e-12)
    weighed = sum(weight * loss(part) for weight, part in zip(weights, parts, strict=True))
    assert weighed == pytest.approx(loss(chosen), rel=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_the_loss_is_the_one_transformers_computes_of_the_same_answer(data: dict[str, TaskData], name: str) -> None:
    base = built(data, name)
    batch = base.examples(data["text-to-sql"].train).batch(torch.arange(5), CPU)
    targets = batch.targets
    if MODELS[name].family == "text-generation":  # it shifts them itself
        targets = torch.cat([torch.full((len(targets), 1), IGNORED), targets[:, :-1]], dim=1)
    with torch.inference_mode():
        theirs = base.model(**batch.inputs, labels=targets)
    assert float(batch.loss(theirs)) == pytest.approx(float(theirs.loss), rel=1e-6)


def test_tokens_are_counted_without_padding(data: dict[str, TaskData]) -> None:
    for name in PAIRS:
        batch = built(data, name).examples(data["text-to-sql"].train).batch(torch.arange(6), CPU)
        read = int(batch.inputs["attention_mask"].sum())
        written = int((batch.targets != IGNORED).sum()) if MODELS[name].family == "seq2seq" else 0
        assert batch.tokens == read + written


@dataclass(frozen=True)
class Outputs:
    logits: torch.Tensor


def test_an_ignored_target_does_not_change_a_loss() -> None:
    logits = torch.randn(1, 3, 5)
    short = Batch(inputs={}, targets=torch.tensor([[1, 2]]))
    long = Batch(inputs={}, targets=torch.tensor([[1, 2, IGNORED]]))
    assert torch.equal(short.loss(Outputs(logits[:, :2])), long.loss(Outputs(logits)))


# Answers


@pytest.mark.parametrize("name", ALL)
def test_answers_do_not_depend_on_how_they_are_batched(data: dict[str, TaskData], name: str) -> None:
    base = built(data, name)
    examples = base.examples(data[ALL[name]].test)
    one, several = (
        predict(base.model, examples, batch_size=size, device=CPU, on_step=ignore) for size in (1, len(examples))
    )
    assert one == several


@pytest.mark.parametrize("name", ["tiny/qwen2", "tiny/t5"])
def test_reading_prompts_and_writing_answers_are_counted_apart(data: dict[str, TaskData], name: str) -> None:
    base, seen = built(data, name), []
    examples = base.examples(data["text-to-sql"].test)
    predict(base.model, examples, batch_size=4, device=CPU, on_step=seen.append)
    assert [result.samples for result in seen] == [4, 4, 1]
    for result in seen:
        made = result.generation
        assert made is not None
        assert result.tokens == made.prefill_tokens + made.decode_tokens
        assert result.samples <= made.decode_tokens <= 12 * result.samples
        assert made.prefill_s > 0
        assert made.decode_s > 0
        assert made.prefill_ended_ns <= made.ended_ns


def test_a_long_prompt_keeps_its_end_and_a_long_answer_its_beginning(data: dict[str, TaskData]) -> None:
    task = dataclasses.replace(data["text-to-sql"], longest_input=4, longest_answer=3)
    base = base_of(("text-generation",), MODELS["tiny/qwen2"], task, seed=0)
    batch = base.examples(task.train).batch(torch.arange(2), CPU)
    assert batch.inputs["input_ids"].shape == (2, 7)
    assert (batch.targets != IGNORED).sum(dim=1).tolist() == [3, 3]


# All of it

HEAVY = pytest.mark.heavy


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text-classification", "tiny/bert"),
        ("text-to-sql", "tiny/t5"),
        pytest.param("text-classification", "tiny/distilbert", marks=HEAVY),
        pytest.param("text-classification", "tiny/t5", marks=HEAVY),
        pytest.param("text-classification", "tiny/qwen2", marks=HEAVY),
        *(
            pytest.param(task, name, marks=HEAVY)
            for task in ("token-classification", "question-answering", "masked-language-modelling")
            for name in ("tiny/bert", "tiny/distilbert")
        ),
        pytest.param("question-answering", "tiny/t5", marks=HEAVY),
        pytest.param("question-answering", "tiny/qwen2", marks=HEAVY),
        pytest.param("text-to-sql", "tiny/qwen2", marks=HEAVY),
        pytest.param("text-to-sql", "tiny/llama", marks=HEAVY),
        pytest.param("dialogue-summarisation", "tiny/qwen2", marks=HEAVY),
        pytest.param("dialogue-summarisation", "tiny/llama", marks=HEAVY),
        pytest.param("dialogue-summarisation", "tiny/t5", marks=HEAVY),
        pytest.param("dialogue-summarisation", "tiny/bart", marks=HEAVY),
        pytest.param("paper-highlights", "tiny/t5", marks=HEAVY),
        pytest.param("paper-highlights", "tiny/bart", marks=HEAVY),
        pytest.param("paper-highlights", "tiny/llama", marks=HEAVY),
        pytest.param("summarisation", "tiny/t5", marks=HEAVY),
        pytest.param("summarisation", "tiny/qwen2", marks=HEAVY),
        pytest.param("text-generation", "tiny/t5", marks=HEAVY),
        pytest.param("text-generation", "tiny/qwen2", marks=HEAVY),
    ],
)
def test_a_tiny_fine_tune_beats_its_base(task: str, name: str, tmp_path: Path) -> None:
    data, info = load_task(task, None, seed=0), MODELS[name]
    base = base_of(task_info(task).families, info, data, seed=0)
    test = base.examples(data.test)
    assert data.source is not None
    fit_source(base.model, info, base.examples(data.source), seed=0, device=CPU, on_step=ignore)

    lower = task_info(task).lower_is_better
    # The task's own score; where less of it is better, one of which more is as well.
    metrics = task_info(task).metrics[: 2 if lower else 1]

    def scores(model: nn.Module) -> dict[str, float]:
        answers = predict(model, test, batch_size=100, device=CPU, on_step=ignore)
        likely = (
            log_probabilities(model, test, count=len(data.test), batch_size=100, device=CPU, on_batch=lambda: None)
            if want_likelihoods(metrics)
            else None
        )
        taken = take_scores(
            metrics,
            answers=answers,
            labels=data.test.labels,
            encoders=Encoders({}, published=False),
            context=data.context(tmp_path, len(data.test)),
            likelihoods=likely,
        )
        return {result.name: result.value for result in taken if result.value is not None}

    before = scores(base.model)
    adapted = adapt(base.model, Adapter(method="lora", rank=8), info)
    training = Training(epochs=4, batch_size=32, learning_rate=5e-3)
    fit(adapted, base.examples(data.train), training, seed=0, device=CPU, on_step=ignore)
    after = scores(adapted)
    for metric in metrics:
        assert before[metric] > 0, "a gain relative to nothing is none"
        assert after[metric] < before[metric] / 2 if metric in lower else after[metric] > before[metric] + 0.15


def test_predictions_of_texts_are_kept_so_that_scores_can_be_taken_again(tmp_path: Path) -> None:
    from workers.predictions import write_predictions, write_scores

    test = Split(inputs=("say «a»", "b\nc"), labels=("a", "c"))
    path = write_predictions(tmp_path, "evaluate", test, ["a", "d"])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[1] == {"index": 1, "input": "b\nc", "label": "c", "prediction": "d"}
    again = evaluate("exact_match", [row["prediction"] for row in rows], [row["label"] for row in rows])
    assert again.value == 0.5
    kept = json.loads(write_scores(tmp_path, "evaluate", [again]).read_text())
    assert kept["exact_match"]["value"] == 0.5


def test_predictions_of_labels_of_texts_are_kept_with_the_texts(tmp_path: Path) -> None:
    from workers.predictions import write_predictions

    test = Split(inputs=("good", "bad"), labels=np.array([1, 0]))
    path = write_predictions(tmp_path, "baseline", test, [1, 1])
    assert json.loads(path.read_text().splitlines()[1])["label"] == 0
