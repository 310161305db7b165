"""The phase ``inference``: what so many answers cost."""

from __future__ import annotations

from typing import Any

from torch import nn

from workers import metric_log
from workers import predictions as kept
from workers.contract import Inference, Phase
from workers.phases.work import Work
from workers.training import flops, loop
from workers.training.steps import OnStep, StepResult


def infer(work: Work, model: nn.Module, wanted: Inference) -> None:
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
            work.record_flops(Phase.INFERENCE, found.of(done))
        work.group.first_does("keep-pictures", lambda: kept.write_pictures(work.place.artifacts, answers))


def _answer(work: Work, model: nn.Module, wanted: Inference, count: int, on_step: OnStep) -> list[Any]:
    return loop.predict(
        model, work.test, batch_size=wanted.batch_size, device=work.device, on_step=on_step, count=count
    )


def _warm_up(work: Work, model: nn.Module, wanted: Inference) -> list[flops.Flops]:
    """Answers nobody counts, and the operations they took, where they can be told: counting slows what it sees."""
    done = flops.Tally()
    if not flops.is_countable(model):
        _answer(work, model, wanted, wanted.warmup, work.on_warm_step)
        return []
    with flops.counting() as found:
        _answer(work, model, wanted, wanted.warmup, done.noting(work.on_warm_step))
    return [flops.Flops(by_format=found, units=done.units)] if done.units else []
