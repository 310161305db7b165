"""One evaluation of the base model for all fine-tunes that start from it: ``evaluation.baseline: shared``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workers.contract import Adapter, JobSpec, Training

SUFFIX = "-baseline"
NAME_LENGTH = 94
"""Letters of a manifest's name in the id of a baseline: with the suffix, a dash and 24 digits it holds 128."""


def with_baselines(
    jobs: Sequence[JobSpec], ids_of: Callable[[Sequence[JobSpec]], Sequence[str]]
) -> tuple[JobSpec, ...]:
    """``jobs`` with the evaluations that they share put first, and each fine-tune that shares one needing it.

    One evaluation is shared by the fine-tunes with the same task, model, quantization, data set, seed (the base of a
    ``tiny/*`` model follows from it) and settings of the evaluation. It runs on any accelerator type that one of them
    may run on, on one GPU: scoring does not spread over more.

    Args:
        jobs: of one manifest, with their ids.
        ids_of: baselines without an id to their ids.
    """
    groups: dict[object, list[JobSpec]] = {}
    for job in jobs:
        if job.kind == "finetune" and job.evaluation.baseline == "shared":
            groups.setdefault(_base_of(job), []).append(job)
    unnamed = [_baseline(group) for group in groups.values()]
    ids = dict(zip(groups, ids_of(unnamed), strict=True))
    baselines = [job.model_copy(update={"job_id": job_id}) for job, job_id in zip(unnamed, ids.values(), strict=True)]
    return (*baselines, *(_sharing(job, ids.get(_base_of(job))) for job in jobs))


def _base_of(job: JobSpec) -> object:
    """What the score of a job's base model follows from."""
    return job.task, job.model, job.quantization, job.trust, job.dataset, job.seed, job.evaluation


def _baseline(group: Sequence[JobSpec]) -> JobSpec:
    first = group[0]
    types = [job.resources.accelerators for job in group]
    accelerators = tuple(dict.fromkeys(one for listed in types for one in listed)) if all(types) else ()
    needs = [need for need in first.needs if all(need in job.needs for job in group)]
    return first.model_copy(
        update={
            "kind": "evaluate",
            "adapter": Adapter(),
            "training": Training(),
            "inference": None,
            "resources": first.resources.model_copy(
                update={"nodes": 1, "gpus": min(1, first.resources.gpus), "accelerators": accelerators}
            ),
            "schedule": first.schedule.model_copy(update={"priority": max(job.schedule.priority for job in group)}),
            "needs": tuple(needs),
        }
    )


def _sharing(job: JobSpec, baseline: str | None) -> JobSpec:
    if baseline is None or job.kind != "finetune":
        return job
    return job.model_copy(update={"baseline_job": baseline, "needs": (*job.needs, baseline)})
