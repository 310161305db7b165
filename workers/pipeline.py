"""The phases of a job in order: load, baseline, train, evaluate, inference. Imports torch: import it inside a lease.

What is done in each is in ``workers/phases/``.
"""

from __future__ import annotations

import contextlib
import math

from workers.contract import JobSpec, Phase
from workers.phases.evaluate import evaluate
from workers.phases.finetune import finetune
from workers.phases.inference import infer
from workers.phases.load import base_model, work_of
from workers.phases.work import Place, Work
from workers.session import Session
from workers.training.load import source_steps
from workers.training.steps import steps_of

__all__ = ["Place", "phases_of", "run"]


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
            work = work_of(spec, session, place, stack)
            session.expect(_expected_steps(work))
            model = base_model(work)
        if spec.kind == "finetune":
            model = finetune(work, model)
        elif spec.kind == "evaluate":
            with session.phase(Phase.EVALUATE):
                work.group.first_does("evaluate", lambda: evaluate(work, model, "evaluate"))
        if spec.measured_inference is not None:
            infer(work, model, spec.measured_inference)


def _expected_steps(work: Work) -> dict[Phase, int]:
    """Steps of each phase, as far as they are known before it begins: what a progress over the whole job needs."""
    spec, goes_on = work.spec, work.found is not None
    scored = min(len(work.data.test), spec.evaluation.max_samples or len(work.data.test))
    batches = math.ceil(scored / spec.evaluation.batch_size)
    wanted = spec.measured_inference
    known = {
        Phase.LOAD: 0 if goes_on else source_steps(work.info, len(work.data.source or ())),
        Phase.BASELINE: 0 if goes_on else batches,
        Phase.TRAIN: steps_of(spec.training, len(work.data.train)),
        Phase.EVALUATE: batches,
        Phase.INFERENCE: 0 if wanted is None else wanted.repeats * math.ceil(wanted.requests / wanted.batch_size),
    }
    return {phase: known[phase] for phase in phases_of(spec)}
