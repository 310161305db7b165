"""The phases of a job: load, baseline, train, evaluate, inference. Imports torch: import it inside a lease.

``load`` reads data and makes the model; a ``tiny/*`` model is trained on the task's source split there, which stands
in for a pretrained checkpoint. The baseline is the very model that is adapted next, on the same test split.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers import metric_log
from workers.contract import Inference, JobSpec, Phase
from workers.home import Home
from workers.quality.classification import score
from workers.session import Session
from workers.tasks import load_task, task_info
from workers.tasks.data import TaskData
from workers.training import adapters, load, loop
from workers.training.loop import StepResult
from workers.training.models import model_info


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every phase of one job needs."""

    spec: JobSpec
    session: Session
    data: TaskData
    device: torch.device
    artifacts: Path

    def on_step(self, result: StepResult) -> None:
        """A step that counts."""
        self.session.step(step=result.step, steps=result.steps, samples=result.samples, loss=result.loss)

    def on_warm_step(self, result: StepResult) -> None:  # noqa: ARG002 - what predict calls
        """A step that only warms up: it takes its time and is not counted."""
        self.session.warm()


def phases_of(spec: JobSpec) -> tuple[Phase, ...]:
    """The phases a job goes through, in order: those of its kind, and inference where it is measured."""
    work = {
        "finetune": (*(() if spec.baseline_job else (Phase.BASELINE,)), Phase.TRAIN, Phase.EVALUATE),
        "evaluate": (Phase.EVALUATE,),
        "inference": (),
    }
    measured = () if spec.measured_inference is None else (Phase.INFERENCE,)
    return (Phase.LOAD, *work[spec.kind], *measured)


def run(spec: JobSpec, session: Session, *, artifacts: Path) -> None:
    """Go through the job's phases; predictions and the adapter are left in ``artifacts``.

    Raises:
        JobError: the job cannot go on; what was measured so far is in the logs.
        UnknownNameError: a task, data set, model or metric that is not in its registry.
    """
    with session.phase(Phase.LOAD):
        device = load.prepare(
            math.ceil(spec.resources.cpus), spec.seed, holds_gpu=bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
        )
        data = load_task(spec.task, spec.dataset, spec.seed)
        info = model_info(spec.model)
        work = _Work(spec=spec, session=session, data=data, device=device, artifacts=artifacts)
        base = load.build_base(info, classes=data.classes, seed=spec.seed)
        load.fit_source(base, info, data.source, seed=spec.seed, device=device, on_step=work.on_step)
        model: nn.Module = base
        if spec.adapter_job is not None:
            model = adapters.load_saved(base, _weights_of(spec.adapter_job, artifacts), device=device)
        if spec.kind != "finetune":
            _count_parameters(session, model.requires_grad_(False))
    if spec.kind == "finetune":
        model = _finetune(work, model)
    elif spec.kind == "evaluate":
        with session.phase(Phase.EVALUATE):
            _evaluate(work, model, "evaluate")
    if spec.measured_inference is not None:
        _infer(work, model, spec.measured_inference)


def _finetune(work: _Work, model: nn.Module) -> nn.Module:
    """The adapted model, scored after, and before unless another job did that for it."""
    if work.spec.baseline_job is None:
        with work.session.phase(Phase.BASELINE):
            _evaluate(work, model, "baseline")
    with work.session.phase(Phase.TRAIN):
        adapted = adapters.adapt(model, work.spec.adapter, model_info(work.spec.model))
        _count_parameters(work.session, adapted)
        loop.fit(
            adapted,
            work.data.train,
            work.spec.training,
            seed=work.spec.seed,
            device=work.device,
            on_step=work.on_step,
        )
    with work.session.phase(Phase.EVALUATE):
        _evaluate(work, adapted, "evaluate")
        adapters.save(adapted, work.artifacts / adapters.FOLDER)
    return adapted


def _evaluate(work: _Work, model: nn.Module, name: str) -> None:
    """Score the model on the test split by every metric of the task; keep the predictions."""
    wanted, test = work.spec.evaluation, work.data.test
    inputs, labels = test.inputs[: wanted.max_samples], test.labels[: wanted.max_samples]
    answers = loop.predict(model, inputs, batch_size=wanted.batch_size, device=work.device, on_step=work.on_step)
    _write_predictions(work.artifacts / f"predictions-{name}.csv", labels, answers)
    for metric in task_info(work.spec.task).metrics:
        work.session.score(metric, score(metric, labels, answers))


def _infer(work: _Work, model: nn.Module, wanted: Inference) -> None:
    """Answer ``requests`` inputs, the test split over and over; the warm-up is of no phase and not counted."""
    inputs = work.data.test.inputs
    with work.session.between_phases():
        loop.predict(
            model,
            _take(inputs, wanted.warmup),
            batch_size=wanted.batch_size,
            device=work.device,
            on_step=work.on_warm_step,
        )
    with work.session.phase(Phase.INFERENCE):
        loop.predict(
            model,
            _take(inputs, wanted.requests),
            batch_size=wanted.batch_size,
            device=work.device,
            on_step=work.on_step,
        )
        work.session.record(metric_log.INFERENCES, wanted.requests)


def _weights_of(job_id: str, artifacts: Path) -> Path:
    """Where the last attempt of a job that succeeded left its weights; ``artifacts`` is this attempt's own folder."""
    home = Home(artifacts.parents[2])
    numbers = [int(folder.name.rpartition("-")[2]) for folder in home.artifacts(job_id).glob("attempt-[0-9]*")]
    return home.attempt_folder(job_id, max(numbers, default=1)) / adapters.FOLDER


def _take(inputs: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """``count`` inputs, from the first on and around again."""
    return inputs[np.arange(count) % len(inputs)]


def _count_parameters(session: Session, model: nn.Module) -> None:
    count = adapters.count_parameters(model)
    session.record(metric_log.TRAINABLE_PARAMETERS, count.trainable)
    session.record(metric_log.TOTAL_PARAMETERS, count.total)


def _write_predictions(path: Path, labels: NDArray[np.int64], answers: NDArray[np.int64]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "prediction"))
        writer.writerows(zip(range(len(labels)), labels.tolist(), answers.tolist(), strict=True))
