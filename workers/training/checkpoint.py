"""Checkpoints of a fine-tune: written aside and renamed, so that one is whole or not there; read by their digests.

Below the job's folder, for all its attempts: ``step-N/`` with ``weights.safetensors`` (what is trained, and buffers),
``state.pt`` (optimiser, schedule, random numbers) and ``checkpoint.json``; and ``frozen.safetensors``, once, where
weights are frozen: a base model trained in ``load`` is another on another device, and an adapter fits only the one that
it grew on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workers.contract import JobSpec
from workers.errors import JobError
from workers.training.loop import Run
from workers.training.models import model_info

FORMAT = 1
"""Changes with what is in a checkpoint, or in its digest: others are not used."""
WEIGHTS, STATE, RECORD, FROZEN = "weights.safetensors", "state.pt", "checkpoint.json", "frozen.safetensors"


class CheckpointError(JobError):
    """A checkpoint cannot be written."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        step: optimiser steps done in it.
        attempt: the attempt that wrote it.
        scores: metric to the base model's score.
        digests: file name to the SHA-256 of its contents, ``frozen.safetensors`` included.
    """

    folder: Path
    step: int
    attempt: int
    scores: Mapping[str, float]
    digests: Mapping[str, str]


def digest_of(spec: JobSpec) -> str:
    """Of all that a fine-tune's weights and base scores follow from: equal where one may go on from the other's."""
    parts = {
        "format": FORMAT,
        "model": asdict(model_info(spec.model)),
        "quantization": spec.quantization,
        "adapter": spec.adapter.model_dump(exclude={"trained_by"}),
        "training": spec.training.model_dump(exclude={"checkpoint_steps"}),
        "data": [spec.task, spec.dataset],
        "evaluation": spec.evaluation.model_dump(include={"batch_size", "max_samples"}),
        "seed": spec.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """A job's checkpoints, as one of its attempts sees them.

    Args:
        folder: ``Home.checkpoints(job_id)``; made by the first ``save``.
        digest: ``digest_of`` the job.
        attempt: the number of the attempt that saves.
    """

    def __init__(self, folder: Path, *, digest: str, attempt: int) -> None:
        self._folder, self._digest, self._attempt = folder, digest, attempt
        self._frozen: str | None = None
        self._previous: Path | None = None

    @property
    def base(self) -> Path:
        """Where a base model made in ``load`` is kept that is quantised next: an adapter fits only that very one."""
        return self._folder / "base"

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest that is whole and of this very job, and why each newer one is not used, in sentences."""
        notes: list[str] = []
        for folder in sorted(self._folder.glob("step-*"), key=_step_in, reverse=True):
            found = self._read(folder)
            if isinstance(found, Checkpoint):
                return found, tuple(notes)
            notes.append(f"checkpoint {folder.name} is not used: {found}.")
        return None, tuple(notes)

    def at(self, folder: Path) -> Checkpoint:
        """The checkpoint in that folder.

        Raises:
            JobError: it is not there, not whole or of another job.
        """
        found = self._read(folder)
        if isinstance(found, str):
            raise JobError(f"{folder} cannot be used: {found}. All ranks must see one ledger: share its folder.")
        return found

    def restore(self, run: Run, checkpoint: Checkpoint, *, draws: bool) -> None:
        """Put the run where the checkpoint was; with ``draws`` the random numbers as well, which are rank 0's."""
        tensors = load_file(checkpoint.folder / WEIGHTS)
        if FROZEN in checkpoint.digests:
            tensors |= load_file(self._folder / FROZEN)
        with torch.no_grad():
            for name, tensor in _tensors(run.model).items():
                tensor.copy_(tensors[name])
        state = torch.load(checkpoint.folder / STATE, map_location="cpu", weights_only=True)
        run.optimizer.load_state_dict(state["optimizer"])
        run.schedule.load_state_dict(state["schedule"])
        run.step = checkpoint.step
        if draws:
            torch.set_rng_state(state["random"])
            if run.device.type == "cuda" and "random_cuda" in state:
                torch.cuda.set_rng_state(state["random_cuda"], run.device)
        self._frozen, self._previous = checkpoint.digests.get(FROZEN), checkpoint.folder

    def save(self, run: Run, scores: Mapping[str, float]) -> Path:
        """Write a checkpoint; all but it and the one before it go.

        Raises:
            CheckpointError: the disk refuses; the ones before are untouched.
        """
        tensors, frozen = _tensors(run.model), _frozen_names(run.model)
        changed = _on_host(tensors, tensors.keys() - frozen)
        kept = {} if self._frozen is not None else _on_host(tensors, frozen)
        final = self._folder / f"step-{run.step}"
        aside = self._folder / f".{final.name}-{os.getpid()}"
        try:
            aside.mkdir(parents=True)
            digests = self._write_frozen(kept) if frozen else {}
            save_file(changed, aside / WEIGHTS)
            torch.save(_state(run), aside / STATE)
            digests |= {name: _put_on_disk(aside / name) for name in (WEIGHTS, STATE)}
            (aside / RECORD).write_text(json.dumps(self._record(run, scores, digests), indent=2), encoding="utf-8")
            _put_on_disk(aside / RECORD)
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            _sync_folder(self._folder)
        # What the two libraries make of a disk that is full.
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"no checkpoint of step {run.step} can be written: {error}. Make room.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._drop_others(final)
        return final

    def remove(self) -> None:
        """All of them: the job has what it was for."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _record(self, run: Run, scores: Mapping[str, float], digests: Mapping[str, str]) -> dict[str, object]:
        return {
            "format": FORMAT,
            "job": self._digest,
            "step": run.step,
            "steps": run.steps,
            "attempt": self._attempt,
            "scores": dict(scores),
            "saved_ns": time.time_ns(),
            "digests": dict(digests),
        }

    def _write_frozen(self, frozen: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Its digest by name; written unless it is there."""
        if self._frozen is None:
            aside = self._folder / f".{FROZEN}-{os.getpid()}"
            try:
                save_file(dict(frozen), aside)
                self._frozen = _put_on_disk(aside)
                aside.rename(self._folder / FROZEN)
            finally:
                aside.unlink(missing_ok=True)
        return {FROZEN: self._frozen}

    def _drop_others(self, newest: Path) -> None:
        """Two stay: the newest, and the one before it for when the newest is torn."""
        kept = {newest, self._previous}
        for folder in (*self._folder.glob("step-*"), *self._folder.glob(".step-*")):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        self._previous = newest

    def _read(self, folder: Path) -> Checkpoint | str:
        """The checkpoint, or a clause that says why it is none of this job's."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if record["format"] != FORMAT or record["job"] != self._digest:
                return "it is of another model, adapter, training, seed or data, or of another version"
            digests = {str(name): str(digest) for name, digest in record["digests"].items()}
            for name, digest in digests.items():
                if _digest((self._folder if name == FROZEN else folder) / name) != digest:
                    return f"its {name} is damaged"
            return Checkpoint(
                folder=folder,
                step=int(record["step"]),
                attempt=int(record["attempt"]),
                scores={str(name): float(score) for name, score in record["scores"].items()},
                digests=digests,
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            return f"it cannot be read ({type(error).__name__}: {error})"


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _on_host(tensors: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    return {name: tensors[name].detach().cpu().contiguous() for name in names}


def _frozen_names(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def _state(run: Run) -> dict[str, object]:
    """What goes into ``state.pt``: tensors and plain values only, so that reading it runs no code."""
    state: dict[str, object] = {
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "random": torch.get_rng_state(),
    }
    if run.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(run.device)
    return state


def _step_in(folder: Path) -> int:
    _, _, step = folder.name.partition("-")
    return int(step) if step.isdecimal() else -1


def _put_on_disk(path: Path) -> str:
    """Have the kernel write it through; gives its digest."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """A rename is on disk once its folder is; a file system that cannot say so is not waited for."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
