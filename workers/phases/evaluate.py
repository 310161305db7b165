"""Scoring a model on the test split, as the phases ``baseline`` and ``evaluate`` do alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from workers import predictions as kept
from workers.phases.work import Work
from workers.quality import registry, scoring
from workers.tasks import task_info
from workers.training import loop
from workers.training.likelihood import LogProbabilities, Tokens, log_probabilities


def evaluate(work: Work, model: nn.Module, name: str) -> dict[str, float]:
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


def _likelihoods(work: Work, model: nn.Module, count: int) -> tuple[LogProbabilities, Tokens]:
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
