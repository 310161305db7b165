"""What happens to a fine-tune between two steps: now and then a checkpoint, and it leaves when it was asked to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

import torch

from workers.leaving import Leaving, Left
from workers.training.checkpoint import Checkpoint, CheckpointError, Checkpoints, Snapshot
from workers.training.group import Group
from workers.training.run import Run

EVERY_S = 300.0
"""Between two checkpoints where ``training.checkpoint_steps`` is null: what a lost node costs at most."""


class Keeping:
    """A ``Keeper``: rank 0 writes checkpoints, and all ranks leave after the same step.

    Args:
        found: where to go on from; ``None``: begin at the beginning.
        scores: metric to the base model's score, for whoever goes on from a checkpoint.
        every_steps: steps between two checkpoints; ``None``: ``EVERY_S`` seconds.
        go_on: called when the next step may begin, on all ranks at about the same time.
        seed: the job's; ranks but the first draw from generators of their own, which follow from it.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        group: Group,
        leaving: Leaving,
        found: Checkpoint | None,
        scores: Mapping[str, float],
        every_steps: int | None,
        seed: int,
        go_on: Callable[[], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints, self._group, self._leaving, self._found = checkpoints, group, leaving, found
        self._scores, self._every_steps, self._seed = scores, every_steps, seed
        self._go_on, self._monotonic_s = go_on, monotonic_s
        self._saved_s = monotonic_s()

    def begin(self, run: Run) -> None:
        """Put the run where the checkpoint was.

        Raises:
            JobError: this rank cannot read it.
        """
        ranks = self._group.ranks
        if self._found is not None:
            self._checkpoints.restore(run, self._found, draws=ranks.is_first)
        if not ranks.is_first:
            # Masks of dropout must not be the same on all ranks, nor those of the run before once more.
            torch.manual_seed(self._seed + 1_000_003 * ranks.rank + 7919 * run.step)
        self._saved_s = self._monotonic_s()

    def after_step(self, run: Run) -> None:
        """Write a checkpoint when it is time, and leave when any rank was asked to.

        Raises:
            Left: one was; the checkpoint is written.
            PeerLostError: another rank has ended.
        """
        first = self._group.ranks.is_first
        leaves, saves, with_frozen = self._group.any(
            (self._leaving.is_asked, first and self._is_time(run), first and self._checkpoints.lacks_frozen), run.device
        )
        if leaves or saves:
            self._save(run, with_frozen=with_frozen)
        if leaves:
            raise Left
        self._go_on()

    def _is_time(self, run: Run) -> bool:
        if self._every_steps is not None:
            return run.step % self._every_steps == 0
        return self._monotonic_s() - self._saved_s >= EVERY_S

    def _save(self, run: Run, *, with_frozen: bool) -> None:
        """A checkpoint that cannot be written costs what it would have saved, not the job."""
        kept = Snapshot.of(run, with_frozen=with_frozen)
        if self._group.ranks.is_first:
            try:
                self._checkpoints.save(kept, self._scores)
            except CheckpointError as error:
                sys.stderr.write(f"warning: {error}\n")
        self._saved_s = self._monotonic_s()
