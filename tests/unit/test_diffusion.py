"""Text-to-image models: pictures of a tiny one, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.errors import JobError
from workers.predictions import write_pictures
from workers.tasks import load_task, task_info, unscored
from workers.tasks.data import Split
from workers.training.families import base_of
from workers.training.families.base import Base
from workers.training.loop import predict
from workers.training.models import MODELS, model_info
from workers.training.steps import StepResult

CPU = torch.device("cpu")
TASK = "image-generation"
TINY = MODELS["tiny/stable-diffusion"]


def built() -> Base:
    return base_of(task_info(TASK).families, TINY, load_task(TASK, None, seed=0), seed=0)


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(JobError, match=r"needs the package diffusers; pip install 'wattledger\[diffusion\]'"):
        built()


def test_a_folder_without_a_pipeline_is_told(tmp_path: Path) -> None:
    data = load_task(TASK, None, seed=0)
    with pytest.raises(JobError, match=r"model \S+ cannot be loaded: "):
        base_of(("text-to-image",), model_info(str(tmp_path)), data, seed=0)


def test_several_networks_are_not_quantised() -> None:
    data = load_task(TASK, None, seed=0)
    with pytest.raises(JobError, match="set quantization: none"):
        base_of(("text-to-image",), TINY, data, seed=0, loading={"quantization_config": object()})


def test_it_is_not_trained() -> None:
    with pytest.raises(JobError, match="run them as kind: inference"):
        built().examples(Split(inputs=("a",), labels=("a",))).batch(torch.arange(1), CPU)


@pytest.mark.parametrize("kind", ["finetune", "evaluate"])
def test_a_task_without_a_score_is_measured_as_inference_alone(kind: str) -> None:
    assert unscored(TASK, "inference") is None
    assert unscored(TASK, kind) == (
        f"task image-generation has no score, so there is nothing to {kind}: set kind: inference, "
        "which measures what it costs"
    )


def test_a_picture_does_not_depend_on_what_it_is_made_with_and_its_steps_are_known() -> None:
    base, seen = built(), list[StepResult]()
    examples = base.examples(load_task(TASK, None, seed=0).test)
    one, several = (
        predict(base.model, examples, batch_size=size, device=CPU, on_step=seen.append, count=5) for size in (1, 5)
    )
    assert [picture is None for picture in one] == [False] * 4 + [True], "only those to be looked at are kept"
    for alone, among in zip(one[:4], several[:4], strict=True):
        assert alone.shape == (16, 16, 3)
        # Sums of floats come in another order: a value next to a half may be rounded the other way.
        assert np.abs(alone.astype(int) - among.astype(int)).max() <= 1
    assert not np.array_equal(one[0], one[1])
    assert {result.denoising_steps for result in seen} == {4}


def test_a_pipeline_in_a_folder_makes_the_pictures_it_made_before(tmp_path: Path) -> None:
    base, prompts = built(), Split(inputs=("a red circle",), labels=("a red circle",))
    base.model.pipeline.save_pretrained(tmp_path)
    info = dataclasses.replace(model_info(str(tmp_path)), config={"num_inference_steps": 4})
    again = base_of(("text-to-image",), info, load_task(TASK, None, seed=0), seed=0)
    first, second = (
        predict(one.model, one.examples(prompts), batch_size=1, device=CPU, on_step=lambda _: None)[0]
        for one in (base, again)
    )
    assert np.array_equal(first, second)


def test_the_first_few_pictures_are_kept_as_png(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    paths = write_pictures(tmp_path, [picture, None, *[picture] * 9])
    assert [path.name for path in paths] == [f"picture-{place}.png" for place in range(4)]
    assert np.array_equal(np.asarray(Image.open(paths[0])), picture)
    assert write_pictures(tmp_path / "none", ["a text", 3]) == []
