"""A job as text: everything wrong with it is said at once, and what is right reads back equal."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from workers.contract import Adapter, Inference, JobSpec, Method, Phase, Resources, Training
from workers.errors import InputError
from workers.section import section_problems


def job(**changes: object) -> str:
    return json.dumps({"task": "digits", "model": "tiny/vit", **changes})


def complaint(text: str, source: str = "job.json") -> str:
    with pytest.raises(InputError) as caught:
        JobSpec.from_json(text, source=source)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "task: digits"])
def test_what_is_not_json_says_so_and_what_to_write(text: str) -> None:
    message = complaint(text, source="jobs/a.json")
    assert message.startswith("jobs/a.json is not JSON: ")
    assert message.endswith("Write one object with at least task and model.")


def test_json_that_is_no_object_is_refused() -> None:
    assert complaint("[1, 2]").startswith("job.json cannot be used:\n  job: ")


def test_a_job_without_task_and_model_misses_both() -> None:
    assert complaint("{}") == "job.json cannot be used:\n  task: is missing\n  model: is missing"


def test_every_problem_is_named_at_once_with_its_path() -> None:
    text = job(seed=-1, kind="tune", training={"epochs": 0, "batch_size": "many"}, adapter={"methd": "lora"})
    lines = complaint(text).splitlines()
    assert lines[0] == "job.json cannot be used:"
    assert sorted(line.strip().split(":")[0] for line in lines[1:]) == [
        "adapter.methd",
        "kind",
        "seed",
        "training.batch_size",
        "training.epochs",
    ]


def test_an_encoder_of_a_score_that_takes_none_is_refused() -> None:
    text = job(evaluation={"encoders": {"bert_score": "/models/roberta-large", "rouge1": "owner/name"}})
    assert complaint(text) == (
        "job.json cannot be used:\n  evaluation.encoders.rouge1: "
        "unknown key; known: bert_score, scibert_score, mover_score"
    )


def test_an_unknown_key_comes_with_the_known_ones_of_its_section() -> None:
    assert complaint(job(adapter={"methd": "lora"})) == (
        "job.json cannot be used:\n"
        "  adapter.methd: unknown key; known: method, rank, alpha, dropout, targets, trained_by"
    )


def test_an_unknown_key_of_a_section_that_may_be_left_out_comes_with_the_known_ones_too() -> None:
    assert complaint(job(inference={"request": 3})) == (
        "job.json cannot be used:\n  inference.request: unknown key; known: requests, repeats, batch_size, warmup"
    )


@pytest.mark.parametrize("kind", ["finetune", "evaluate"])
def test_a_job_of_another_kind_measures_inference_only_where_it_says_so(kind: str) -> None:
    silent = JobSpec.from_json(job(kind=kind))
    assert silent.measured_inference is None
    assert JobSpec.from_json(silent.to_json()).measured_inference is None
    said = JobSpec.from_json(job(kind=kind, inference={}))
    assert said.measured_inference == Inference()
    assert JobSpec.from_json(said.to_json()).measured_inference == Inference()


def test_an_inference_job_measures_inference_with_the_defaults_or_as_it_says() -> None:
    silent = JobSpec.from_json(job(kind="inference"))
    assert silent.measured_inference == Inference(requests=1000, batch_size=1, warmup=10)
    assert JobSpec.from_json(silent.to_json()) == silent
    said = JobSpec.from_json(job(kind="inference", inference={"requests": 5}))
    assert said.measured_inference == Inference(requests=5)


def test_an_impossible_value_is_quoted() -> None:
    assert complaint(job(accounting={"pue": 0.5})) == (
        "job.json cannot be used:\n  accounting.pue: input should be greater than or equal to 1 (given 0.5)"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": "3"}},
        {"training": {"epochs": 2.5}},
        {"training": {"epochs": True}},
        {"seed": None},
        {"name": 7},
    ],
    ids=json.dumps,
)
def test_values_of_another_type_are_not_converted(changes: dict[str, object]) -> None:
    assert "cannot be used" in complaint(job(**changes))


@pytest.mark.parametrize("job_id", ["", "-a", "a/b", "a b", "../a", "a" * 129, 'a"b'])
def test_a_job_id_that_cannot_name_a_folder_a_label_and_an_actor_is_refused(job_id: str) -> None:
    assert complaint(job(job_id=job_id)).startswith("job.json cannot be used:\n  job_id: string should ")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("adapter", {"rank": 0}),
        ("adapter", {"dropout": 1.0}),
        ("adapter", {"alpha": 0}),
        ("training", {"learning_rate": 0}),
        ("training", {"max_steps": 0}),
        ("evaluation", {"batch_size": 0}),
        ("inference", {"warmup": -1}),
        ("resources", {"gpus": -1}),
        ("resources", {"accelerators": "every"}),
        ("power", {"cap_percent": 101}),
        ("retry", {"failures": 11}),
    ],
)
def test_values_outside_their_range_are_refused_at_their_path(section: str, values: dict[str, object]) -> None:
    line = complaint(job(**{section: values})).splitlines()[1]
    assert line.startswith(f"  {section}.{next(iter(values))}: ")


def test_problems_of_one_section_have_paths_from_that_section() -> None:
    assert section_problems(Training, {}) == []
    ((path, sentence),) = section_problems(Training, {"epoch": 1})
    assert path == ("epoch",)
    assert sentence.startswith("unknown key; known: epochs, max_steps, ")


def test_a_job_is_frozen() -> None:
    spec = JobSpec.from_json(job())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        spec.seed = 1


def test_task_and_model_are_enough() -> None:
    spec = JobSpec.from_json(job())
    assert spec == JobSpec(task="digits", model="tiny/vit")
    assert (spec.kind, spec.adapter.method, spec.quantization, spec.seed) == ("finetune", "none", "none", 0)


@pytest.mark.parametrize("accelerators", [(), ("H100", "A100-80GB"), "each"], ids=str)
def test_a_job_reads_back_equal_from_what_it_writes(accelerators: Any) -> None:
    spec = JobSpec(
        job_id="vit-r8-s1",
        name="vit",
        task="digits",
        model="tiny/vit",
        dataset="digits-rotated",
        adapter=Adapter(method="lora", rank=4, alpha=9.5, dropout=0.1, targets=("q_proj", "fc1")),
        training=Training(epochs=3, max_steps=10, learning_rate=1e-4),
        resources=Resources(gpus=2, accelerators=accelerators, memory_gb=1.5),
        seed=2**32 - 1,
    )
    text = spec.to_json()
    assert "\n" not in text
    assert JobSpec.from_json(text) == spec


def test_a_job_reads_back_equal_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(JobSpec(task="digits", model="tiny/vit").to_json(), encoding="utf-8")
    assert JobSpec.from_json(path.read_text(encoding="utf-8")) == JobSpec(task="digits", model="tiny/vit")


def test_whole_numbers_serve_where_a_fraction_could_stand() -> None:
    assert JobSpec.from_json(job(adapter={"method": "lora", "alpha": 16})).adapter.alpha == 16.0


def test_phases_are_in_the_order_they_happen() -> None:
    assert [str(phase) for phase in Phase] == ["load", "baseline", "train", "evaluate", "inference"]


def test_a_hardware_counter_is_the_strongest_method_and_simulation_the_weakest() -> None:
    assert max(Method, key=lambda method: method.weakness) is Method.SIMULATED
    assert min(Method, key=lambda method: method.weakness) is Method.COUNTER
