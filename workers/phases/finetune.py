"""The phases of a fine-tune after ``load``: ``baseline``, ``train``, ``evaluate``.

The baseline is the very model that is adapted next, on the same test split.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from workers import metric_log
from workers.contract import Phase
from workers.phases.evaluate import evaluate
from workers.phases.work import Work
from workers.training import adapters, flops, loop
from workers.training.keeping import Keeping


def finetune(work: Work, model: nn.Module) -> nn.Module:
    """The adapted model, scored after, and before unless another job does that for it."""
    scores: Mapping[str, float] = {}
    if work.spec.baseline_job is None:
        with work.session.phase(Phase.BASELINE):
            scores = _baseline(work, model)
    with work.session.phase(Phase.TRAIN):
        adapted = adapters.adapt(model, work.spec.adapter, work.info)
        work.record_parameters(adapted)
        done = _train(work, adapted, scores)
    with work.session.between_phases():
        _count_training(work, adapted, done)
    with work.session.phase(Phase.EVALUATE):
        work.group.first_does("evaluate", lambda: _keep_result(work, adapted))
    return adapted


def _baseline(work: Work, model: nn.Module) -> Mapping[str, float]:
    """Scores of the base model by metric, on rank 0: taken now, or those of the checkpoint once more."""
    if work.found is None:
        scores: dict[str, float] = {}
        work.group.first_does("baseline", lambda: scores.update(evaluate(work, model, "baseline")))
        return scores
    if work.is_first:
        work.session.record(metric_log.SCORES_FROM_ATTEMPT, work.found.attempt)
        for metric, value in work.found.scores.items():
            work.session.score(metric, value)
    return work.found.scores


def _train(work: Work, adapted: nn.Module, scores: Mapping[str, float]) -> flops.Tally:
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


def _count_training(work: Work, adapted: nn.Module, done: flops.Tally) -> None:
    """Operations of the train phase, each rank's its own: rank 0 counts a micro-batch, which takes time of no phase."""
    train, spec = work.train, work.spec
    assert train is not None

    def count() -> str:
        found = flops.of_training(adapted, train, spec.training, device=work.device, ranks=work.place.ranks)
        work.session.warm()
        return "" if found is None else found.to_text()

    told = work.group.from_first("flops", count)
    if told and done.units:
        work.record_flops(Phase.TRAIN, flops.Flops.from_text(told).of(done))


def _keep_result(work: Work, adapted: nn.Module) -> None:
    evaluate(work, adapted, "evaluate")
    adapters.save(adapted, work.place.artifacts / adapters.FOLDER)
