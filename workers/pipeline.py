"""The phases of a job: load, baseline, train, evaluate, inference. Imports torch: import it inside a lease.

``load`` reads data and makes the model; a ``tiny/*`` model is trained on the task's source split there, which stands
in for a pretrained checkpoint. The baseline is the very model that is adapted next, on the same test split.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workers import metric_log
from workers import predictions as kept
from workers.contract import Inference, JobSpec, Phase
from workers.home import Home
from workers.leaving import Leaving
from workers.quality import registry, scoring
from workers.quality.scoring import Encoders
from workers.session import Session
from workers.tasks import load_task, task_info
from workers.tasks.data import TaskData
from workers.training import adapters, flops, load, loop, quantizing
from workers.training.checkpoint import Checkpoint, Checkpoints
from workers.training.examples import Examples, Generation
from workers.training.families import base_of, family_of
from workers.training.families.base import Base, Model
from workers.training.group import Group, joined
from workers.training.hub import trusted
from workers.training.keeping import Keeping
from workers.training.likelihood import LogProbabilities, Tokens, log_probabilities
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
        base: the model as it is built or loaded, before anything is done with it.
        train: the split to fine-tune on, as the model takes it; ``None`` where nothing is trained.
        test: likewise the split that is scored, and that inference goes over.
        found: the checkpoint it goes on from; ``None``: it begins at the beginning.
        encoders: those of scores, for baseline and evaluate alike.
    """

    spec: JobSpec
    session: Session
    place: Place
    data: TaskData
    base: Base
    train: Examples | None
    test: Examples
    device: torch.device
    group: Group
    found: Checkpoint | None
    encoders: Encoders

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that works where one is enough."""
        return self.place.ranks.is_first

    def on_step(self, result: StepResult) -> None:
        """A step that counts."""
        self.session.step(
            step=result.step, steps=result.steps, samples=result.samples, loss=result.loss, tokens=result.tokens
        )
        if result.denoising_steps is not None:
            self.session.record(metric_log.DENOISING_STEPS, result.denoising_steps, step=result.step)
        if result.eval_loss is not None:
            self.session.record(metric_log.EVAL_LOSS, result.eval_loss, step=result.step)
        if result.generation is not None:
            self._record_generation(result.step, result.generation)

    def _record_generation(self, step: int, made: Generation) -> None:
        """Reading the prompts and writing the answers apart, each at its own end."""
        for seconds, tokens, value, count, at_ns in (
            (
                metric_log.PREFILL_SECONDS,
                metric_log.TOKENS_PREFILL,
                made.prefill_s,
                made.prefill_tokens,
                made.prefill_ended_ns,
            ),
            (metric_log.DECODE_SECONDS, metric_log.TOKENS_DECODE, made.decode_s, made.decode_tokens, made.ended_ns),
        ):
            self.session.record(seconds, value, step=step, time_ns=at_ns)
            self.session.record(tokens, count, step=step, time_ns=at_ns)

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
    info, task = model_info(spec.model, spec.trust), task_info(spec.task)
    if spec.kind != "inference":
        registry.prepare(task.metrics)
    data = load_task(spec.task, spec.dataset, spec.seed, offline=info.hub is None)
    loading = {**quantizing.loading_of(spec.quantization, device, bf16=spec.training.bf16), **trusted(spec.trust)}
    base = base_of(task.families, info, data, seed=spec.seed, loading=loading)
    work = _Work(
        spec=spec,
        session=session,
        place=place,
        data=data,
        base=base,
        train=base.examples(data.train) if spec.kind == "finetune" else None,
        test=base.examples(data.test),
        device=device,
        group=group,
        found=found,
        # Only a job that reaches for the hub anyway fetches encoders from it that it does not name.
        encoders=Encoders(
            {score: name for score, name in spec.evaluation.encoders if name is not None},
            published=info.hub is not None,
            device=str(device),
        ),
    )
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
        Phase.LOAD: 0 if goes_on else load.source_steps(model_info(spec.model), len(work.data.source or ())),
        Phase.BASELINE: 0 if goes_on else batches,
        Phase.TRAIN: loop.steps_of(spec.training, len(work.data.train)),
        Phase.EVALUATE: batches,
        Phase.INFERENCE: 0 if wanted is None else wanted.repeats * math.ceil(wanted.requests / wanted.batch_size),
    }
    return {phase: known[phase] for phase in phases_of(spec)}


def _base(work: _Work) -> nn.Module:
    """The base model. Its weights are in the checkpoint where there is one, and come from rank 0 where others train."""
    spec, model, source = work.spec, work.base.model, work.data.source
    info = model_info(spec.model)
    weights = None if spec.adapter_job is None else _weights_of(spec.adapter_job, work.place.artifacts)
    if weights is not None:
        # Before a base is made that nothing could be put on.
        adapters.check_saved(weights)
    if work.found is None and source is not None and info.hub is None:
        examples = work.base.examples(source)
        work.group.first_does(
            "base",
            lambda: load.fit_source(model, info, examples, seed=spec.seed, device=work.device, on_step=work.on_step),
        )
    if spec.quantization != "none":
        model = _quantized(work)
    if weights is not None:
        return _frozen(work, adapters.load_saved(model, weights, device=work.device))
    return model if spec.kind == "finetune" else _frozen(work, model)


def _quantized(work: _Work) -> Model:
    """The base in fewer bits: one of the hub is loaded so, one that was made here goes by way of the disk."""
    info, wanted, folder = model_info(work.spec.model), work.spec.quantization, work.place.checkpoints.base
    if info.hub is not None:
        quantizing.check(work.base.model, wanted)
        return work.base.model
    if work.found is None:
        work.group.first_does("keep-base", lambda: quantizing.keep(work.base.model, folder))
    family = family_of(task_info(work.spec.task).families, info)
    return quantizing.quantized(family, folder, wanted, work.device, bf16=work.spec.training.bf16)


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
        done = _train(work, adapted, scores)
    with work.session.between_phases():
        _count_training(work, adapted, done)
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


def _train(work: _Work, adapted: nn.Module, scores: Mapping[str, float]) -> flops.Tally:
    """Fine-tune, from the checkpoint on where there is one; checkpoints are left behind. Gives what this rank did."""
    spec, done = work.spec, flops.Tally()
    assert work.train is not None
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
            work.train,
            spec.training,
            seed=spec.seed,
            device=work.device,
            on_step=done.noting(work.on_step),
            group=work.group,
            keeper=keeping,
        )
    return done


def _count_training(work: _Work, adapted: nn.Module, done: flops.Tally) -> None:
    """Operations of the train phase, each rank's its own: rank 0 counts a micro-batch, which takes time of no phase."""
    train, spec = work.train, work.spec
    assert train is not None

    def count() -> str:
        found = flops.of_training(adapted, train, spec.training, device=work.device, ranks=work.place.ranks)
        work.session.warm()
        return "" if found is None else found.to_text()

    told = work.group.from_first("flops", count)
    if told and done.units:
        _record_flops(work, Phase.TRAIN, flops.Flops.from_text(told).of(done))


def _record_flops(work: _Work, phase: Phase, by_format: Mapping[str, float]) -> None:
    work.session.record(metric_log.FLOPS, sum(by_format.values()), phase=phase)
    for name, count in by_format.items():
        work.session.record(f"{metric_log.FLOPS_PREFIX}{name}", count, phase=phase)


def _keep_result(work: _Work, adapted: nn.Module) -> None:
    _evaluate(work, adapted, "evaluate")
    adapters.save(adapted, work.place.artifacts / adapters.FOLDER)


def _evaluate(work: _Work, model: nn.Module, name: str) -> dict[str, float]:
    """Score the model on the test split by every metric of the task; keep predictions and scores.

    A score that cannot be known is left out of the log; the file of scores says why.
    """
    wanted, folder = work.spec.evaluation, work.place.artifacts
    test = work.data.test.first(wanted.max_samples)
    answers = loop.predict(
        model, work.test, batch_size=wanted.batch_size, device=work.device, on_step=work.on_step, count=len(test)
    )
    metrics = task_info(work.spec.task).metrics
    likelihoods = _likelihoods(work, model, len(test)) if registry.want_likelihoods(metrics) else None
    context = work.data.context(folder / "context", len(test))
    kept.write_predictions(folder, name, test, answers, besides=_besides(context, likelihoods))
    # An encoder is loaded here, by the first phase that scores with it: its energy is that phase's.
    results = scoring.take_scores(
        metrics,
        answers=answers,
        labels=test.labels,
        encoders=work.encoders,
        context=context,
        likelihoods=likelihoods,
    )
    kept.write_scores(folder, name, results)
    scores = {result.name: result.value for result in results if result.value is not None}
    for metric, value in scores.items():
        work.session.score(metric, value)
    return scores


def _likelihoods(work: _Work, model: nn.Module, count: int) -> tuple[LogProbabilities, Tokens]:
    """The right answers once more through the model, which counts no samples: they were counted when it answered."""
    return log_probabilities(
        model,
        work.test,
        count=count,
        batch_size=work.spec.evaluation.batch_size,
        device=work.device,
        on_batch=work.session.warm,
    )


def _besides(
    context: Mapping[str, object], likelihoods: tuple[LogProbabilities, Tokens] | None
) -> dict[str, Sequence[object]]:
    """What scores were made of besides answers and labels, of each example."""
    found: dict[str, Sequence[object]] = {name: value for name, value in context.items() if isinstance(value, list)}
    return found if likelihoods is None else {**found, "log_probabilities": likelihoods[0]}


def _infer(work: _Work, model: nn.Module, wanted: Inference) -> None:
    """Answer ``requests`` inputs, the test split over and over; each repeat begins at its first example.

    The warm-up is of no phase and not counted.
    """
    answers: list[Any] = []
    done, warmed = flops.Tally(), list[flops.Flops]()

    def repeat() -> None:
        for before in range(wanted.repeats):

            def on_step(result: StepResult, before: int = before) -> None:
                work.on_step(result.among(before, wanted.repeats))

            answers[:] = _answer(work, model, wanted, wanted.requests, done.noting(on_step))
            work.session.record(metric_log.INFERENCES, wanted.requests)

    with work.session.between_phases():
        work.group.first_does("warm-up", lambda: warmed.extend(_warm_up(work, model, wanted)))
    with work.session.phase(Phase.INFERENCE):
        work.group.first_does("inference", repeat)
    with work.session.between_phases():
        for found in warmed:
            _record_flops(work, Phase.INFERENCE, found.of(done))
        work.group.first_does("keep-pictures", lambda: kept.write_pictures(work.place.artifacts, answers))


def _answer(work: _Work, model: nn.Module, wanted: Inference, count: int, on_step: loop.OnStep) -> list[Any]:
    return loop.predict(
        model, work.test, batch_size=wanted.batch_size, device=work.device, on_step=on_step, count=count
    )


def _warm_up(work: _Work, model: nn.Module, wanted: Inference) -> list[flops.Flops]:
    """Answers nobody counts, and the operations they took, where they can be told: counting slows what it sees."""
    done = flops.Tally()
    if not flops.is_countable(model):
        _answer(work, model, wanted, wanted.warmup, work.on_warm_step)
        return []
    with flops.counting() as found:
        _answer(work, model, wanted, wanted.warmup, done.noting(work.on_warm_step))
    return [flops.Flops(by_format=found, units=done.units)] if done.units else []


def _weights_of(job_id: str, artifacts: Path) -> Path:
    """Where the last attempt of a job that succeeded left its weights; ``artifacts`` is this attempt's own folder."""
    home = Home(artifacts.parents[2])
    numbers = [int(folder.name.rpartition("-")[2]) for folder in home.artifacts(job_id).glob("attempt-[0-9]*")]
    return home.attempt_folder(job_id, max(numbers, default=1)) / adapters.FOLDER


def _count_parameters(work: _Work, model: nn.Module) -> None:
    if work.is_first:
        count = adapters.count_parameters(model)
        work.session.record(metric_log.TRAINABLE_PARAMETERS, count.trainable)
        work.session.record(metric_log.TOTAL_PARAMETERS, count.total)
