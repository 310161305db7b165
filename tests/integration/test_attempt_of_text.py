"""Attempts whose work is text, as their users meet them: a model in a folder, a hub that is out of reach."""

import json
from pathlib import Path

import pytest

from tests.integration.test_attempt import Ran, run, write_job
from workers.contract import Phase
from workers.rescore import main as rescore
from workers.tasks import TASKS, load_task, task_info
from workers.training.families import base_of
from workers.training.families.spans import questions_and_texts
from workers.training.families.tokenizing import tokenizer_for
from workers.training.models import MODELS

SQL = {
    "task": "text-to-sql",
    "dataset": "questions-tiny",
    "training": {"max_steps": 3, "batch_size": 8},
    "evaluation": {"max_samples": 6, "batch_size": 3},
    "inference": {"requests": 5, "batch_size": 2, "warmup": 1, "repeats": 2},
}


QUESTIONS = {
    "task": "question-answering",
    "dataset": "facts-tiny",
    "training": {"max_steps": 3, "batch_size": 8},
    "evaluation": {"max_samples": 6, "batch_size": 4},
}


def saved(task: str, model: str, folder: Path) -> str:
    """A model of random weights and its tokenizer, as save_pretrained leaves them."""
    data, info = load_task(task, None, seed=0), MODELS[model]
    base_of((str(info.family),), info, data, seed=0).model.save_pretrained(folder)
    tokenizer_for(info, data, ends=info.family != "text-generation").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A fine-tune of a model in a folder, as save_pretrained leaves one."""
    folder = tmp_path_factory.mktemp("asked")
    return run(write_job(folder, model=saved("text-to-sql", "tiny/t5", folder / "model"), **SQL))


@pytest.fixture(scope="module")
def highlighted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A fine-tune where the hub is out of reach, and one of three encoders is in a folder."""
    folder = tmp_path_factory.mktemp("highlighted")
    work = {
        "task": "paper-highlights",
        "dataset": "highlights-tiny",
        "model": saved("paper-highlights", "tiny/t5", folder / "model"),
        "training": {"max_steps": 2, "batch_size": 8},
        "evaluation": {
            "max_samples": 3,
            "batch_size": 3,
            "encoders": {"bert_score": saved("text-classification", "tiny/bert", folder / "bert")},
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return run(write_job(folder, **work))


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A model that is scored on going on with texts."""
    folder = tmp_path_factory.mktemp("continued")
    work = {
        "kind": "evaluate",
        "task": "text-generation",
        "dataset": "errands-tiny",
        "model": saved("text-generation", "tiny/qwen2", folder / "model"),
        "adapter": {"method": "none"},
        "evaluation": {"max_samples": 5, "batch_size": 2},
    }
    return run(write_job(folder, **work))


def scores_of(ran: Ran, name: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(
        (ran.home.attempt_folder("quick", 1) / f"scores-{name}.json").read_text()
    )
    return found


def test_a_score_whose_encoder_is_out_of_reach_is_null_with_the_reason_and_the_job_succeeds(highlighted: Ran) -> None:
    assert (highlighted.code, highlighted.err) == (0, "")
    logged = {sample.name for sample in highlighted.metrics()}
    for name in ("baseline", "evaluate"):
        scores = scores_of(highlighted, name)
        assert set(scores) == set(TASKS["paper-highlights"].metrics)
        for score in ("scibert_score", "mover_score"):
            assert scores[score]["value"] is None
            assert str(scores[score]["reason"]).startswith("no encoder: The scoring model ")
            assert f"evaluation.encoders.{score}" in str(scores[score]["reason"])
            assert f"score/{score}" not in logged
        assert str(scores["bert_score"]["note"]).endswith("bert, last layer")
        assert [scores["bert_score"]["value"]] == [
            value for phase, value in highlighted.values("score/bert_score") if phase == name
        ]


def test_scores_of_an_attempt_are_taken_again_to_the_same_figures(
    highlighted: Ran, asked: Ran, continued: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    for ran, names in (
        (highlighted, ("rougel", "bert_score")),
        (asked, ("execution_accuracy", "exact_match")),
        (continued, ("perplexity", "bleu")),
    ):
        folder = ran.home.attempt_folder("quick", 1)
        encoders = [f"--encoder=bert_score={ran.home.root.parent / 'bert'}"] if ran is highlighted else []
        asked_for = [f"--score={name}" for name in names]
        assert rescore([str(folder / "predictions-evaluate.jsonl"), *asked_for, *encoders]) == 0
        printed = [line.split("  ")[:3] for line in capsys.readouterr().out.splitlines()]
        kept = scores_of(ran, "evaluate")
        assert printed == [["evaluate", name, f"{kept[name]['value']:.4f}"] for name in names]


def test_a_language_model_is_scored_by_its_perplexity_and_its_samples_are_counted_once(continued: Ran) -> None:
    assert (continued.code, continued.err) == (0, "")
    (perplexity,) = continued.values("score/perplexity")
    # Random weights find each of some six hundred tokens about as likely.
    assert perplexity[0] is Phase.EVALUATE
    assert 300 < perplexity[1] < 1200
    assert sum(value for phase, value in continued.values("samples") if phase is Phase.EVALUATE) == 5


def test_a_model_of_the_hub_that_is_out_of_reach_ends_the_job_with_the_remedy_and_its_energy_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = run(write_job(tmp_path, model="nobody/nothing", **SQL))
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert line.startswith("model nobody/nothing cannot be loaded: ")
    assert line.endswith(
        "Give this node access to the hub, or fetch the model into its cache or a folder and name that."
    )
    assert sum(entry.energy_mj for entry in ran.entries()) > 0


def test_a_model_the_task_cannot_use_ends_the_job(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, model="tiny/bert", **SQL))
    assert (ran.code, ran.err) == (
        1,
        "a text-classification model cannot do this task; choose a model of the family text-generation or seq2seq.\n",
    )


def test_a_fine_tune_of_text_scores_on_real_databases_and_keeps_its_answers(asked: Ran) -> None:
    assert (asked.code, asked.err) == (0, "")
    folder = asked.home.attempt_folder("quick", 1)
    for name in ("baseline", "evaluate"):
        rows = [json.loads(line) for line in (folder / f"predictions-{name}.jsonl").read_text().splitlines()]
        assert [row["index"] for row in rows] == list(range(6))
        scores = json.loads((folder / f"scores-{name}.json").read_text())
        assert set(scores) == {"execution_accuracy", "valid_efficiency", "exact_match"}
        assert [(Phase(name), scores["execution_accuracy"]["value"])] == [
            (phase, value) for phase, value in asked.values("score/execution_accuracy") if phase == name
        ]
    assert len(list((folder / "context").glob("*.sqlite"))) == 6
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_tokens_are_counted_in_every_step_and_reading_and_writing_apart(asked: Ran) -> None:
    for phase in (Phase.BASELINE, Phase.TRAIN, Phase.EVALUATE, Phase.INFERENCE):
        steps = [value for at, value in asked.values("samples") if at is phase]
        tokens = [value for at, value in asked.values("tokens") if at is phase]
        assert len(tokens) == len(steps)
        assert all(several > samples for several, samples in zip(tokens, steps, strict=True))
    for phase in (Phase.BASELINE, Phase.EVALUATE, Phase.INFERENCE):
        parts = {
            name: sum(value for at, value in asked.values(name) if at is phase)
            for name in ("tokens", "tokens_prefill", "tokens_decode", "prefill_seconds", "decode_seconds")
        }
        assert parts["tokens"] == parts["tokens_prefill"] + parts["tokens_decode"]
        assert min(parts.values()) > 0
    assert asked.values("prefill_seconds")[0][0] is Phase.BASELINE


def test_each_repeat_of_the_inferences_is_counted_at_its_end_and_its_steps_go_on(asked: Ran) -> None:
    assert [value for phase, value in asked.values("inferences") if phase is Phase.INFERENCE] == [5, 5]
    assert [value for phase, value in asked.values("samples") if phase is Phase.INFERENCE] == [2, 2, 1, 2, 2, 1]
    assert json.loads((asked.home.attempt_folder("quick", 1) / "progress.json").read_text())["done"] == 6


def test_a_model_in_a_folder_is_not_trained_before_its_baseline(asked: Ran) -> None:
    assert asked.code == 0, asked.err
    assert [value for phase, value in asked.values("samples") if phase is Phase.LOAD] == []


def test_a_fine_tune_of_an_encoder_in_a_folder_answers_questions_in_words_of_their_texts(tmp_path: Path) -> None:
    data, info = load_task("question-answering", None, seed=0), MODELS["tiny/distilbert"]
    base_of(("question-answering",), info, data, seed=0).model.save_pretrained(tmp_path / "model")
    tokenizer_for(info, data, ends=True, texts=questions_and_texts).save_pretrained(tmp_path / "model")
    ran = run(write_job(tmp_path, model=str(tmp_path / "model"), **QUESTIONS))
    assert (ran.code, ran.err) == (0, "")
    folder = ran.home.attempt_folder("quick", 1)
    rows = [json.loads(line) for line in (folder / "predictions-evaluate.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [list(answers) for answers in data.test.labels[:6]]
    for row in rows:
        question, context = row["input"]
        assert question in data.test.inputs[row["index"]].question
        assert row["prediction"] in context
    scores = json.loads((folder / "scores-evaluate.json").read_text())
    assert set(scores) == {"exact_match", "token_f1"}
    assert all(score["value"] is not None for score in scores.values())


@pytest.mark.heavy
@pytest.mark.parametrize("task", ["token-classification", "question-answering", "masked-language-modelling"])
def test_an_encoder_is_quantised_under_the_head_of_its_task(tmp_path: Path, task: str) -> None:
    changes = {**QUESTIONS, "task": task, "dataset": None, "model": "tiny/bert", "quantization": "8bit"}
    ran = run(write_job(tmp_path, **changes))
    assert (ran.code, ran.err) == (0, "")
    assert (ran.home.attempt_folder("quick", 1) / "adapter" / "adapter_model.safetensors").is_file()
    assert len(ran.values(f"score/{task_info(task).metrics[0]}")) == 2


@pytest.mark.heavy
def test_a_model_that_writes_is_scored_as_a_classifier(tmp_path: Path) -> None:
    changes = {**QUESTIONS, "task": "text-classification", "dataset": "reviews-tiny", "model": "tiny/t5"}
    ran = run(write_job(tmp_path, **changes))
    assert (ran.code, ran.err) == (0, "")
    lines = (ran.home.attempt_folder("quick", 1) / "predictions-evaluate.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["prediction"] for row in rows} <= {-1, 0, 1}
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert (Phase.EVALUATE, right / len(rows)) in ran.values("score/accuracy")
