"""Attempts whose work is pictures and words."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.integration.test_attempt import run, write_job
from workers.contract import Phase
from workers.tasks import load_task
from workers.training.families import base_of
from workers.training.families.processing import processor_for
from workers.training.models import MODELS


def test_a_task_without_a_score_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    ran = run(write_job(tmp_path, task="image-generation", model="tiny/stable-diffusion", kind="evaluate"))
    assert ran.code == 2
    assert "task image-generation has no score, so there is nothing to evaluate: set kind: inference" in ran.err


def test_pictures_are_made_measured_and_the_first_few_kept(tmp_path: Path) -> None:
    ran = run(
        write_job(
            tmp_path,
            task="image-generation",
            model="tiny/stable-diffusion",
            kind="inference",
            inference={"requests": 6, "batch_size": 2, "warmup": 1},
        )
    )
    assert ran.code == 0, ran.err
    folder = ran.home.attempt_folder("quick", 1)
    pictures = [np.asarray(Image.open(path)) for path in sorted(folder.glob("picture-*.png"))]
    assert [picture.shape for picture in pictures] == [(16, 16, 3)] * 4
    assert ran.values("denoising_steps") == [(Phase.INFERENCE, 4.0)] * 3
    assert ran.values("inferences") == [(Phase.INFERENCE, 6.0)]
    assert sum(entry.energy_mj for entry in ran.entries() if entry.phase is Phase.INFERENCE) > 0


def test_a_fine_tune_on_questions_keeps_questions_and_answers(tmp_path: Path) -> None:
    data, info = load_task("visual-question-answering", None, seed=0), MODELS["tiny/blip-vqa"]
    base_of(("visual-question-answering",), info, data, seed=0).model.save_pretrained(tmp_path / "model")
    processor_for(info, data).save_pretrained(tmp_path / "model")
    ran = run(
        write_job(
            tmp_path,
            task="visual-question-answering",
            model=str(tmp_path / "model"),
            dataset="scenes-tiny",
            kind="finetune",
            adapter={"method": "lora"},
            training={"max_steps": 2, "batch_size": 8},
            evaluation={"max_samples": 4},
            inference={"requests": 2, "warmup": 1},
        )
    )
    assert ran.code == 0, ran.err
    folder = ran.home.attempt_folder("quick", 1)
    rows = [json.loads(line) for line in (folder / "predictions-evaluate.jsonl").read_text().splitlines()]
    assert all(row["input"].endswith("?") for row in rows)
    scores = json.loads((folder / "scores-evaluate.json").read_text())
    assert scores["vqa_accuracy"]["value"] is None
    assert scores["vqa_accuracy"]["reason"]
    assert scores["vqa_exact"]["value"] is not None
