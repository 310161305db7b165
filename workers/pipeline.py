"""The phases of a job: load, baseline, train, evaluate, inference. Imports torch: import it inside a lease.

``load`` reads data and makes the model; a ``tiny/*`` model is trained on the task's source split there, which stands
in for a pretrained checkpoint. The baseline is the very model that is adapted next, on the same test split.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers import metric_log
from workers.contract import Inference, JobSpec, Phase
from workers.home import Home
from workers.leaving import Leaving
from workers.quality.classification import score
from workers.session import Session
from workers.tasks import load_task, task_info
from workers.tasks.data import TaskData
from workers.training import adapters, load, loop
from workers.training.checkpoint import Checkpoint, Checkpoints
from workers.training.group import Group, joined
from workers.training.keeping import Keeping
from workers.training.loop import StepResult
from workers.training.models import model_info
from workers.training.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an attempt runs, and what it can go on from.

    Attributes:
        artifacts: the attempt's folder.
        checkpoints: those of its job.
        leaving: whether it was asked to leave.
        ranks: which process of the attempt this is.
    """

    artifacts: Path
    checkpoints: Checkpoints
    leaving: Leaving
    ranks: Ranks


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every phase of one job needs.

    Attributes:
        found: the checkpoint it goes on from; ``None``: it begins at the beginning.
    """

    spec: JobSpec
    session: Session
    place: Place
    data: TaskData
    device: torch.device
    group: Group
    found: Checkpoint | None

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that works where one is enough."""
        return self.place.ranks.is_first

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


def run(spec: JobSpec, session: Session, place: Place) -> None:
    """Go through the job's phases; predictions and the adapter are left in the attempt's folder.

    Raises:
        JobError: the job cannot go on; what was measured so far is in the logs.
        UnknownNameError: a task, data set, model or metric that is not in its registry.
        Left: it was asked to; what it had is in a checkpoint.
    """
    with contextlib.ExitStack() as stack:
        with session.phase(Phase.LOAD):
            work = _prepare(spec, session, place, stack)
            model = _base(work)
        if spec.kind == "finetune":
            model = _finetune(work, model)
        elif spec.kind == "evaluate":
            with session.phase(Phase.EVALUATE):
                work.group.first_does("evaluate", lambda: _evaluate(work, model, "evaluate"))
        if spec.measured_inference is not None:
            _infer(work, model, spec.measured_inference)


def _prepare(spec: JobSpec, session: Session, place: Place, stack: contextlib.ExitStack) -> _Work:
    """The device, the other ranks (until ``stack`` is left), the data, and what there is to go on from."""
    threads = math.ceil(spec.resources.cpus * spec.resources.nodes / max(place.ranks.world_size, spec.resources.nodes))
    device = load.prepare(threads, spec.seed, holds_gpu=bool(os.environ.get("CUDA_VISIBLE_DEVICES")))
    group = stack.enter_context(joined(place.ranks, device))
    found = _find(place.checkpoints, group) if spec.kind == "finetune" else None
    data = load_task(spec.task, spec.dataset, spec.seed)
    work = _Work(spec=spec, session=session, place=place, data=data, device=device, group=group, found=found)
    session.expect(_steps_of(work))
    if found is not None and work.is_first:
        session.record(metric_log.RESUMED_FROM_ATTEMPT, found.attempt)
    return work


def _find(checkpoints: Checkpoints, group: Group) -> Checkpoint | None:
    """The checkpoint to go on from: rank 0 chooses, all take the same."""
    chosen: list[Checkpoint] = []

    def choose() -> str:
        found, notes = checkpoints.newest()
        for note in notes:
            sys.stderr.write(f"{note}\n")
        if found is None:
            return ""
        sys.stderr.write(f"goes on from step {found.step}, from a checkpoint of attempt {found.attempt}.\n")
        chosen.append(found)
        return str(found.folder)

    folder = group.from_first("checkpoint", choose)
    if not folder:
        return None
    return chosen[0] if chosen else checkpoints.at(Path(folder))


def _steps_of(work: _Work) -> dict[Phase, int]:
    """Steps of each phase, as far as they are known before it begins: what a progress over the whole job needs."""
    spec, goes_on = work.spec, work.found is not None
    scored = min(len(work.data.test), spec.evaluation.max_samples or len(work.data.test))
    batches = math.ceil(scored / spec.evaluation.batch_size)
    wanted = spec.measured_inference
    known = {
        Phase.LOAD: 0 if goes_on else load.source_steps(model_info(spec.model), work.data.source),
        Phase.BASELINE: 0 if goes_on else batches,
        Phase.TRAIN: loop.steps_of(spec.training, len(work.data.train)),
        Phase.EVALUATE: batches,
        Phase.INFERENCE: 0 if wanted is None else math.ceil(wanted.requests / wanted.batch_size),
    }
    return {phase: known[phase] for phase in phases_of(spec)}


def _base(work: _Work) -> nn.Module:
    """The base model. Its weights are in the checkpoint where there is one, and come from rank 0 where others train."""
    info, spec = model_info(work.spec.model), work.spec
    model = load.build_base(info, classes=work.data.classes, seed=spec.seed)
    if work.found is None:
        work.group.first_does(
            "base",
            lambda: load.fit_source(
                model, info, work.data.source, seed=spec.seed, device=work.device, on_step=work.on_step
            ),
        )
    if spec.adapter_job is not None:
        weights = _weights_of(spec.adapter_job, work.place.artifacts)
        return _frozen(work, adapters.load_saved(model, weights, device=work.device))
    return model if spec.kind == "finetune" else _frozen(work, model)


def _frozen(work: _Work, model: nn.Module) -> nn.Module:
    _count_parameters(work, model.requires_grad_(False))
    return model


def _finetune(work: _Work, model: nn.Module) -> nn.Module:
    """The adapted model, scored after, and before unless another job does that for it."""
    scores: Mapping[str, float] = {}
    if work.spec.baseline_job is None:
        with work.session.phase(Phase.BASELINE):
            scores = _baseline(work, model)
    with work.session.phase(Phase.TRAIN):
        adapted = adapters.adapt(model, work.spec.adapter, model_info(work.spec.model))
        _count_parameters(work, adapted)
        _train(work, adapted, scores)
    with work.session.phase(Phase.EVALUATE):
        work.group.first_does("evaluate", lambda: _keep_result(work, adapted))
    return adapted


def _baseline(work: _Work, model: nn.Module) -> Mapping[str, float]:
    """Scores of the base model by metric, on rank 0: taken now, or those of the checkpoint once more."""
    if work.found is None:
        scores: dict[str, float] = {}
        work.group.first_does("baseline", lambda: scores.update(_evaluate(work, model, "baseline")))
        return scores
    if work.is_first:
        work.session.record(metric_log.SCORES_FROM_ATTEMPT, work.found.attempt)
        for metric, value in work.found.scores.items():
            work.session.score(metric, value)
    return work.found.scores


def _train(work: _Work, adapted: nn.Module, scores: Mapping[str, float]) -> None:
    """Fine-tune, from the checkpoint on where there is one; checkpoints are left behind."""
    spec = work.spec
    work.session.carry(0 if work.found is None else work.found.step)
    keeping = Keeping(
        checkpoints=work.place.checkpoints,
        group=work.group,
        leaving=work.place.leaving,
        found=work.found,
        scores=scores,
        every_steps=spec.training.checkpoint_steps,
        seed=spec.seed,
        go_on=work.session.begin_work,
    )
    with work.place.leaving.between_steps():
        loop.fit(
            adapted,
            work.data.train,
            spec.training,
            seed=spec.seed,
            device=work.device,
            on_step=work.on_step,
            group=work.group,
            keeper=keeping,
        )


def _keep_result(work: _Work, adapted: nn.Module) -> None:
    _evaluate(work, adapted, "evaluate")
    adapters.save(adapted, work.place.artifacts / adapters.FOLDER)


def _evaluate(work: _Work, model: nn.Module, name: str) -> dict[str, float]:
    """Score the model on the test split by every metric of the task; keep the predictions."""
    wanted, test = work.spec.evaluation, work.data.test
    inputs, labels = test.inputs[: wanted.max_samples], test.labels[: wanted.max_samples]
    answers = loop.predict(model, inputs, batch_size=wanted.batch_size, device=work.device, on_step=work.on_step)
    _write_predictions(work.place.artifacts / f"predictions-{name}.csv", labels, answers)
    scores = {metric: score(metric, labels, answers) for metric in task_info(work.spec.task).metrics}
    for metric, value in scores.items():
        work.session.score(metric, value)
    return scores


def _infer(work: _Work, model: nn.Module, wanted: Inference) -> None:
    """Answer ``requests`` inputs, the test split over and over; the warm-up is of no phase and not counted."""

    def answer(count: int, on_step: loop.OnStep) -> None:
        inputs = _take(work.data.test.inputs, count)
        loop.predict(model, inputs, batch_size=wanted.batch_size, device=work.device, on_step=on_step)

    with work.session.between_phases():
        work.group.first_does("warm-up", lambda: answer(wanted.warmup, work.on_warm_step))
    with work.session.phase(Phase.INFERENCE):
        work.group.first_does("inference", lambda: answer(wanted.requests, work.on_step))
        if work.is_first:
            work.session.record(metric_log.INFERENCES, wanted.requests)


def _weights_of(job_id: str, artifacts: Path) -> Path:
    """Where the last attempt of a job that succeeded left its weights; ``artifacts`` is this attempt's own folder."""
    home = Home(artifacts.parents[2])
    numbers = [int(folder.name.rpartition("-")[2]) for folder in home.artifacts(job_id).glob("attempt-[0-9]*")]
    return home.attempt_folder(job_id, max(numbers, default=1)) / adapters.FOLDER


def _take(inputs: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """``count`` inputs, from the first on and around again."""
    return inputs[np.arange(count) % len(inputs)]


def _count_parameters(work: _Work, model: nn.Module) -> None:
    if work.is_first:
        count = adapters.count_parameters(model)
        work.session.record(metric_log.TRAINABLE_PARAMETERS, count.trainable)
        work.session.record(metric_log.TOTAL_PARAMETERS, count.total)


def _write_predictions(path: Path, labels: NDArray[np.int64], answers: NDArray[np.int64]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "prediction"))
        writer.writerows(zip(range(len(labels)), labels.tolist(), answers.tolist(), strict=True))
