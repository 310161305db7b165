"""Attempts that find boxes in pictures, as their users meet them: a model in a folder, boxes in a file."""

import json
from pathlib import Path

from transformers import YolosImageProcessorPil

from tests.integration.test_attempt import run, write_job
from workers.contract import Phase
from workers.predictions import read_predictions
from workers.quality.registry import evaluate
from workers.tasks import load_task
from workers.training.families import base_of
from workers.training.models import MODELS


def test_a_fine_tune_of_a_detector_in_a_folder_keeps_boxes_that_score_as_it_says(tmp_path: Path) -> None:
    data = load_task("object-detection", None, seed=0)
    base_of(("object-detection",), MODELS["tiny/yolos"], data, seed=0).model.save_pretrained(tmp_path / "model")
    YolosImageProcessorPil(do_resize=False).save_pretrained(tmp_path / "model")
    ran = run(
        write_job(
            tmp_path,
            model=str(tmp_path / "model"),
            task="object-detection",
            dataset="boxes-tiny",
            training={"max_steps": 3, "batch_size": 8},
            evaluation={"max_samples": 6, "batch_size": 3},
        )
    )
    assert (ran.code, ran.err) == (0, "")
    folder = ran.home.attempt_folder("quick", 1)
    for name in ("baseline", "evaluate"):
        scores = json.loads((folder / f"scores-{name}.json").read_text())
        assert set(scores) == {"map", "map_50", "map_75"}
        kept = read_predictions(folder / f"predictions-{name}.jsonl")
        found, true = kept.answers, kept.labels
        assert [boxes.labels.tolist() for boxes in true] == [boxes.labels.tolist() for boxes in data.test.labels[:6]]
        assert evaluate("map_50", found, true).value == scores["map_50"]["value"]
        assert (Phase(name), scores["map"]["value"]) in ran.values("score/map")
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    losses = [value for phase, value in ran.values("loss") if phase is Phase.TRAIN]
    assert len(losses) == 3
    assert min(losses) > 0


def test_a_model_that_is_no_image_classifier_ends_the_job_with_the_reason(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, model="tiny/yolos", task="image-classification", dataset="shapes-tiny"))
    assert (ran.code, ran.err) == (
        1,
        "an object-detection model cannot do this task; choose a model of the family image-classification.\n",
    )
