"""The phase ``load``: the data and the base model.

A ``tiny/*`` model is trained on the task's source split here, which stands in for a pretrained checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path

from torch import nn

from workers import metric_log
from workers.contract import JobSpec
from workers.home import Home
from workers.phases.work import Place, Work
from workers.quality import registry
from workers.quality.scoring import Encoders
from workers.session import Session
from workers.tasks import load_task, task_info
from workers.training import adapters, quantizing
from workers.training.checkpoint import Checkpoint, Checkpoints
from workers.training.families import base_of, family_of
from workers.training.families.base import Model
from workers.training.group import Group, joined
from workers.training.hub import trusted
from workers.training.load import fit_source, prepare
from workers.training.models import model_info


def work_of(spec: JobSpec, session: Session, place: Place, stack: contextlib.ExitStack) -> Work:
    """The device, the other ranks (until ``stack`` is left), the data, and what there is to go on from.

    Raises:
        JobError: the data or the model cannot be had, or do not go together.
        UnknownNameError: a task, data set, model or metric that is not in its registry.
    """
    threads = math.ceil(spec.resources.cpus * spec.resources.nodes / max(place.ranks.world_size, spec.resources.nodes))
    device = prepare(threads, spec.seed, holds_gpu=bool(os.environ.get("CUDA_VISIBLE_DEVICES")))
    group = stack.enter_context(joined(place.ranks, device))
    found = _find(place.checkpoints, group) if spec.kind == "finetune" else None
    info, task = model_info(spec.model, spec.trust), task_info(spec.task)
    if spec.kind != "inference":
        registry.prepare(task.metrics)
    data = load_task(spec.task, spec.dataset, spec.seed, offline=info.hub is None)
    loading = {**quantizing.loading_of(spec.quantization, device, bf16=spec.training.bf16), **trusted(spec.trust)}
    base = base_of(task.families, info, data, seed=spec.seed, loading=loading)
    work = Work(
        spec=spec,
        session=session,
        place=place,
        data=data,
        info=info,
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


def base_model(work: Work) -> nn.Module:
    """The base model. Its weights are in the checkpoint where there is one, and come from rank 0 where others train.

    Raises:
        JobError: it cannot be trained or quantised, or has no place for the weights of ``adapter_job``.
    """
    spec, model, source = work.spec, work.base.model, work.data.source
    weights = None if spec.adapter_job is None else _weights_of(spec.adapter_job, work.place.artifacts)
    if weights is not None:
        # Before a base is made that nothing could be put on.
        adapters.check_saved(weights)
    if work.found is None and source is not None and work.info.hub is None:
        examples = work.base.examples(source)
        work.group.first_does(
            "base",
            lambda: fit_source(model, work.info, examples, seed=spec.seed, device=work.device, on_step=work.on_step),
        )
    if spec.quantization != "none":
        model = _quantized(work)
    if weights is not None:
        return _frozen(work, adapters.load_saved(model, weights, device=work.device))
    return model if spec.kind == "finetune" else _frozen(work, model)


def _quantized(work: Work) -> Model:
    """The base in fewer bits: one of the hub is loaded so, one that was made here goes by way of the disk."""
    info, wanted, folder = work.info, work.spec.quantization, work.place.checkpoints.base
    if info.hub is not None:
        quantizing.check(work.base.model, wanted)
        return work.base.model
    if work.found is None:
        work.group.first_does("keep-base", lambda: quantizing.keep(work.base.model, folder))
    family = family_of(task_info(work.spec.task).families, info)
    return quantizing.quantized(family, folder, wanted, work.device, bf16=work.spec.training.bf16)


def _frozen(work: Work, model: nn.Module) -> nn.Module:
    work.record_parameters(model.requires_grad_(False))
    return model


def _weights_of(job_id: str, artifacts: Path) -> Path:
    """Where the last attempt of a job that succeeded left its weights; ``artifacts`` is this attempt's own folder."""
    home = Home(artifacts.parents[2])
    numbers = [int(folder.name.rpartition("-")[2]) for folder in home.artifacts(job_id).glob("attempt-[0-9]*")]
    return home.attempt_folder(job_id, max(numbers, default=1)) / adapters.FOLDER
