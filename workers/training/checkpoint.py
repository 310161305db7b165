"""Checkpoints of a fine-tune: written aside and renamed, so that one is whole or not there; read by their digests.

Below the job's folder, for all its attempts: ``step-N/`` with ``weights.safetensors`` (what is trained, and buffers),
``state.pt`` (optimiser, schedule, random numbers, early stopping), ``best.safetensors`` where early stopping has seen
a best, and ``checkpoint.json``; and ``frozen.safetensors``, once, where weights are frozen: a base model trained in
``load`` is another on another device, and an adapter fits only the one that it grew on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workers.contract import JobSpec
from workers.errors import JobError
from workers.training.engine import tensors_of
from workers.training.models import model_info
from workers.training.run import Run
from workers.training.stopping import Best

FORMAT = 1
"""Changes with what is in a checkpoint, or in its digest: others are not used."""
WEIGHTS, STATE, RECORD, FROZEN = "weights.safetensors", "state.pt", "checkpoint.json", "frozen.safetensors"
BEST = "best.safetensors"


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


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run between two steps, gathered from all ranks; what it holds is rank 0's, and nothing elsewhere.

    Attributes:
        step: optimiser steps done, of ``steps``.
        changed: weights that are trained, and buffers, by name.
        frozen: weights that are not; empty where they were not asked for.
        best: those of ``changed`` at the best look of early stopping.
        state: what goes into ``state.pt``: tensors and plain values only, so that reading it runs no code.
    """

    step: int
    steps: int
    changed: Mapping[str, torch.Tensor]
    frozen: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]
    state: Mapping[str, object]

    @classmethod
    def of(cls, run: Run, *, with_frozen: bool) -> Snapshot:
        """Of this run, on every rank at once.

        Raises:
            PeerLostError: another rank has ended.
        """
        changed, frozen = run.kept_names()
        return cls(
            step=run.step,
            steps=run.steps,
            changed=run.engine.tensors(changed),
            frozen=run.engine.tensors(frozen) if with_frozen else {},
            best=run.best.weights,
            state=_state(run),
        )


def digest_of(spec: JobSpec) -> str:
    """Of all that a fine-tune's weights and base scores follow from: equal where one may go on from the other's."""
    parts = {
        "format": FORMAT,
        "model": {**asdict(model_info(spec.model)), "trust": None},  # It decides whether it loads, not what.
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

    @property
    def lacks_frozen(self) -> bool:
        """Whether the weights that are frozen are yet to be written, where there are any."""
        return self._frozen is None

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
        """Put the run where the checkpoint was; with ``draws`` also what is rank 0's: random numbers, best weights."""
        tensors = load_file(checkpoint.folder / WEIGHTS)
        if FROZEN in checkpoint.digests:
            tensors |= load_file(self._folder / FROZEN)
        with torch.no_grad():
            for name, tensor in tensors_of(run.model).items():
                tensor.copy_(tensors[name])
        state = torch.load(checkpoint.folder / STATE, map_location="cpu", weights_only=True)
        run.optimizer.load_state_dict(state["optimizer"])
        run.schedule.load_state_dict(state["schedule"])
        run.step = checkpoint.step
        weights = load_file(checkpoint.folder / BEST) if draws and BEST in checkpoint.digests else {}
        run.best = Best(**state["best"], weights=weights)
        if draws:
            torch.set_rng_state(state["random"])
            if run.device.type == "cuda" and "random_cuda" in state:
                torch.cuda.set_rng_state(state["random_cuda"], run.device)
        self._frozen, self._previous = checkpoint.digests.get(FROZEN), checkpoint.folder

    def save(self, kept: Snapshot, scores: Mapping[str, float]) -> Path:
        """Write a checkpoint; all but it and the one before it go.

        Raises:
            CheckpointError: the disk refuses; the ones before are untouched.
        """
        final = self._folder / f"step-{kept.step}"
        aside = self._folder / f".{final.name}-{os.getpid()}"
        try:
            aside.mkdir(parents=True)
            digests = self._write_frozen(kept.frozen)
            save_file(dict(kept.changed), aside / WEIGHTS)
            if kept.best:
                save_file(dict(kept.best), aside / BEST)
            torch.save(dict(kept.state), aside / STATE)
            digests |= {path.name: _put_on_disk(path) for path in aside.iterdir()}
            (aside / RECORD).write_text(json.dumps(self._record(kept, scores, digests), indent=2), encoding="utf-8")
            _put_on_disk(aside / RECORD)
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            _sync_folder(self._folder)
        # What the two libraries make of a disk that is full.
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"no checkpoint of step {kept.step} can be written: {error}. Make room.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._drop_others(final)
        return final

    def remove(self) -> None:
        """All of them: the job has what it was for."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _record(self, kept: Snapshot, scores: Mapping[str, float], digests: Mapping[str, str]) -> dict[str, object]:
        return {
            "format": FORMAT,
            "job": self._digest,
            "step": kept.step,
            "steps": kept.steps,
            "attempt": self._attempt,
            "scores": dict(scores),
            "saved_ns": time.time_ns(),
            "digests": dict(digests),
        }

    def _write_frozen(self, frozen: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Its digest by name; written unless it is there, or nothing is frozen."""
        if self._frozen is None and frozen:
            aside = self._folder / f".{FROZEN}-{os.getpid()}"
            try:
                save_file(dict(frozen), aside)
                self._frozen = _put_on_disk(aside)
                aside.rename(self._folder / FROZEN)
            finally:
                aside.unlink(missing_ok=True)
        return {FROZEN: self._frozen} if self._frozen is not None else {}

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


def _state(run: Run) -> dict[str, object]:
    best = run.best
    state: dict[str, object] = {
        "optimizer": run.engine.optimizer_state(),
        "schedule": run.schedule.state_dict(),
        "best": {"loss": best.loss, "step": best.step, "looks_since": best.looks_since},
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
