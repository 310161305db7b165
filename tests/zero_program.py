"""Fine-tunes of a tiny model as one rank of several makes them: run with ``torchrun``'s variables, ``FOLDER`` first.

``FOLDER/cases.json`` maps names to ``Case``. Rank 0 leaves what came of each in ``FOLDER/NAME.json``, its weights in
``FOLDER/NAME/adapter`` and its checkpoints in ``FOLDER/NAME/checkpoints``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch

from workers.contract import Adapter, Training
from workers.leaving import Leaving, Left
from workers.tasks.data import Split
from workers.training.adapters import adapt, count_parameters, save
from workers.training.checkpoint import Checkpoints
from workers.training.examples import Examples
from workers.training.families.images import ImageExamples
from workers.training.group import Group, joined
from workers.training.keeping import Keeping
from workers.training.load import build_base, prepare
from workers.training.loop import fit, predict
from workers.training.models import MODELS
from workers.training.ranks import Ranks
from workers.training.steps import StepResult

CPU = torch.device("cpu")
VIT = MODELS["tiny/vit"]


class Case(pydantic.BaseModel):
    """A fine-tune: asked to leave after step ``leave_after``, or going on from a checkpoint of the case ``goes_on``."""

    adapter: Adapter
    training: Training
    leave_after: int | None = None
    goes_on: str | None = None


def noise(samples: int, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1, 1, (samples, 1, 8, 8)).astype(np.float32)
    return ImageExamples(Split(inputs=inputs, labels=random.integers(0, 10, samples)))


def train(name: str, case: Case, folder: Path, group: Group) -> dict[str, Any]:
    """Losses by step, looks by step, and what rank 0's model answers in the end."""
    torch.manual_seed(0)
    model = adapt(build_base(VIT, classes=10, seed=0), case.adapter, VIT)
    before = count_parameters(model)
    checkpoints = Checkpoints(folder / (case.goes_on or name) / "checkpoints", digest="these cases", attempt=1)
    # Rank 0 looks, as in an attempt: it wrote it, and the others may be ahead of that.
    newest = group.from_first(f"newest-{name}", lambda: str(getattr(checkpoints.newest()[0], "folder", "")))
    found = checkpoints.at(Path(newest)) if case.goes_on else None
    leaving = Leaving()
    keeping = Keeping(
        checkpoints=checkpoints,
        group=group,
        leaving=leaving,
        found=found,
        scores={},
        every_steps=None,
        seed=0,
        go_on=lambda: None,
    )
    told: dict[str, Any] = {"losses": [], "looks": [], "during": [], "left": False}

    def on_step(result: StepResult) -> None:
        told["losses"].append(result.loss)
        told["looks"].append(result.eval_loss)
        told["during"] = list(vars(count_parameters(model)).values())
        if result.step == case.leave_after:
            leaving.ask(10, None)

    try:
        with leaving.between_steps():
            fit(model, noise(40), case.training, seed=1, device=CPU, on_step=on_step, group=group, keeper=keeping)
    except Left:
        return {**told, "left": True}
    if group.ranks.is_first:
        assert count_parameters(model) == before
        save(model, folder / name / "adapter")
        with torch.inference_mode():
            told["answers"] = model(pixel_values=noise(5, seed=9).batch(torch.arange(5), CPU).inputs["pixel_values"])[
                "logits"
            ].tolist()
        told["predicted"] = predict(model, noise(5, seed=9), batch_size=5, device=CPU, on_step=lambda result: None)
    return {**told, "counted": list(vars(before).values())}


def main(folder: Path) -> int:
    ranks = Ranks.of(os.environ)
    prepare(1, 0)
    cases = json.loads((folder / "cases.json").read_text())
    with joined(ranks, CPU) as group:
        for name, fields in cases.items():
            told = train(name, Case.model_validate(fields), folder, group)
            if ranks.is_first:
                (folder / f"{name}.json").write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
