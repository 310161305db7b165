"""How likely a model finds the right answers: transformers' own loss, token by token, whatever the batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from workers.quality.registry import evaluate
from workers.tasks import load_task, task_info
from workers.tasks.data import TaskData
from workers.training.families import base_of
from workers.training.likelihood import log_probabilities
from workers.training.models import MODELS

CPU = torch.device("cpu")
FAMILIES = task_info("text-generation").families


@pytest.fixture(scope="module")
def data() -> TaskData:
    task = load_task("text-generation", None, seed=0)
    assert task.source is not None
    return dataclasses.replace(task, source=task.source.first(40), train=task.train.first(40), test=task.test.first(9))


@pytest.mark.parametrize("name", ["tiny/qwen2", "tiny/t5"])
def test_the_loss_of_the_log_probabilities_is_the_one_trained_on(data: TaskData, name: str) -> None:
    base = base_of(FAMILIES, MODELS[name], data, seed=0)
    examples, model = base.examples(data.test), base.model.eval()
    steps: list[None] = []
    found, tokens = log_probabilities(
        model, examples, count=7, batch_size=3, device=CPU, on_batch=lambda: steps.append(None)
    )
    assert len(steps) == 3
    assert [len(row) for row in found] == [len(row) for row in tokens]
    assert sum(map(len, tokens)) == examples.units(torch.arange(7))
    batch = examples.batch(torch.arange(7), CPU)
    with torch.inference_mode():
        loss = float(batch.loss(model(**batch.inputs)))
    assert evaluate("loss", found, tokens).value == pytest.approx(loss, rel=1e-5)


def test_a_model_is_left_in_the_mode_it_came_in_and_judged_without_dropout(data: TaskData) -> None:
    base = base_of(FAMILIES, MODELS["tiny/t5"], data, seed=0)
    examples = base.examples(data.test)
    for module in base.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    base.model.train()
    one, other = (
        log_probabilities(base.model, examples, count=4, batch_size=size, device=CPU, on_batch=lambda: None)[0]
        for size in (4, 2)
    )
    assert base.model.training
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4)
