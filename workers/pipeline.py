"""The phases of a job: load, baseline, train, evaluate, inference. Imports torch: import it inside a lease.

``load`` reads data and makes the model; a ``tiny/*`` model is trained on the task's source split there, which stands
in for a pretrained checkpoint. The baseline is the very model that is adapted next, on the same test split.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import device as Device  # noqa: N812 - a type, spelt as one
from torch import nn

from workers import metric_log
from workers.contract import JobSpec, Phase
from workers.quality.classification import score
from workers.session import Session
from workers.tasks import load_task, task_info
from workers.tasks.data import Split, TaskData
from workers.training import adapters, load, loop
from workers.training.loop import StepResult
from workers.training.models import model_info


def run(spec: JobSpec, session: Session, *, artifacts: Path) -> None:
    """Go through the job's phases.

    Raises:
        JobError: the job cannot go on; what was measured so far is in the logs.
        UnknownNameError: a task, data set, model or metric that is not in its registry.
    """
    with session.phase(Phase.LOAD):
        where = load.prepare(math.ceil(spec.resources.cpus), spec.seed)
        data = load_task(spec.task, spec.dataset, spec.seed)
        info = model_info(spec.model)
        model = load.build_base(info, classes=data.classes, seed=spec.seed)
        load.fit_source(model, info, data.source, seed=spec.seed, device=where, on_step=_counted(session))
    if spec.kind == "finetune":
        _finetune(spec, session, model, data, where, artifacts)
    elif spec.kind == "evaluate":
        with session.phase(Phase.EVALUATE):
            _count_parameters(session, model.requires_grad_(False))
            _evaluate(spec, session, model, data.test, where, artifacts / "predictions-evaluate.csv")
    else:
        _infer(spec, session, model, data.test, where)


def phases_of(spec: JobSpec) -> tuple[Phase, ...]:
    """The phases a job of this kind goes through, in order."""
    work = {
        "finetune": (Phase.BASELINE, Phase.TRAIN, Phase.EVALUATE),
        "evaluate": (Phase.EVALUATE,),
        "inference": (Phase.INFERENCE,),
    }
    return (Phase.LOAD, *work[spec.kind])


def _finetune(
    spec: JobSpec, session: Session, model: nn.Module, data: TaskData, where: Device, artifacts: Path
) -> None:
    with session.phase(Phase.BASELINE):
        _evaluate(spec, session, model, data.test, where, artifacts / "predictions-baseline.csv")
    with session.phase(Phase.TRAIN):
        adapted = adapters.adapt(model, spec.adapter, model_info(spec.model))
        _count_parameters(session, adapted)
        loop.fit(adapted, data.train, spec.training, seed=spec.seed, device=where, on_step=_counted(session))
    with session.phase(Phase.EVALUATE):
        _evaluate(spec, session, adapted, data.test, where, artifacts / "predictions-evaluate.csv")
        adapters.save(adapted, artifacts / "adapter")


def _evaluate(spec: JobSpec, session: Session, model: nn.Module, test: Split, where: Device, predictions: Path) -> None:
    """Score the model on the test split by every metric of the task; keep the predictions."""
    inputs, labels = test.inputs[: spec.evaluation.max_samples], test.labels[: spec.evaluation.max_samples]
    answers = loop.predict(
        model, inputs, batch_size=spec.evaluation.batch_size, device=where, on_step=_counted(session)
    )
    _write_predictions(predictions, labels, answers)
    for metric in task_info(spec.task).metrics:
        session.score(metric, score(metric, labels, answers))


def _infer(spec: JobSpec, session: Session, model: nn.Module, test: Split, where: Device) -> None:
    """Answer ``requests`` inputs, the test split over and over; the warm-up is not counted."""
    wanted = spec.inference
    with session.phase(Phase.INFERENCE):
        _count_parameters(session, model.requires_grad_(False))
        warm = _take(test.inputs, wanted.warmup)
        loop.predict(model, warm, batch_size=wanted.batch_size, device=where, on_step=lambda _: session.warm())
        session.record(metric_log.INFERENCES, 0)
        loop.predict(
            model,
            _take(test.inputs, wanted.requests),
            batch_size=wanted.batch_size,
            device=where,
            on_step=_counted(session),
        )
        session.record(metric_log.INFERENCES, wanted.requests)


def _take(inputs: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """``count`` inputs, from the first on and around again."""
    return inputs[np.arange(count) % len(inputs)]


def _count_parameters(session: Session, model: nn.Module) -> None:
    count = adapters.count_parameters(model)
    session.record(metric_log.TRAINABLE_PARAMETERS, count.trainable)
    session.record(metric_log.TOTAL_PARAMETERS, count.total)


def _counted(session: Session) -> loop.OnStep:
    def on_step(result: StepResult) -> None:
        session.step(step=result.step, steps=result.steps, samples=result.samples, loss=result.loss)

    return on_step


def _write_predictions(path: Path, labels: NDArray[np.int64], answers: NDArray[np.int64]) -> None:
    def rows() -> Iterator[tuple[int, int, int]]:
        yield from ((i, int(label), int(answer)) for i, (label, answer) in enumerate(zip(labels, answers, strict=True)))

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "prediction"))
        writer.writerows(rows())
