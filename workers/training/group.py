"""The processes that train one model together, over ``torch.distributed``: NCCL between GPUs, Gloo between CPUs.

What one of them does alone (scores, checkpoints) the others wait for at rank 0's key-value store, not in a collective:
that wait has no limit, sees a signal within ``POLL``, and ends when rank 0 does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from workers.errors import PeerLostError
from workers.training.ranks import Ranks

TIMEOUT = timedelta(seconds=300)
"""How long a rank waits in a collective for the others before it ends. Longer than rank 0 needs to write a checkpoint,
which happens between two of them."""
POLL = timedelta(milliseconds=500)
"""How often a rank that waits at the store lets a signal's handler run."""
GOODBYE = timedelta(seconds=30)
"""How long rank 0, which has the store, waits for the others to have read it."""


class Group:
    """One process among those of its attempt. Alone, everything here is what one process would do anyway.

    Attributes:
        ranks: which one this is, and of how many.
    """

    def __init__(self, ranks: Ranks, store: Store | None = None) -> None:
        self.ranks, self._store = ranks, store

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as all ranks train it: with the weights of rank 0, and gradients averaged over ranks.

        Raises:
            PeerLostError: another rank has ended.
        """
        if self._store is None:
            return model
        with self.peers():
            return DistributedDataParallel(
                model, device_ids=None if device.type == "cpu" else [device], gradient_as_bucket_view=True
            )

    def parts(self, chosen: torch.Tensor, count: int = 1) -> tuple[tuple[torch.Tensor, bool], ...]:
        """This rank's samples of a batch in so many parts, and whether each counts.

        One that has none is a sample that weighs nothing, since all ranks must meet in every collective.
        """
        mine = chosen.tensor_split(self.ranks.world_size)[self.ranks.rank]
        return tuple((part, True) if len(part) else (chosen[:1], False) for part in mine.tensor_split(count))

    def sum(self, value: torch.Tensor) -> float:
        """A scalar's sum over all ranks.

        Raises:
            PeerLostError: another rank has ended.
        """
        if self._store is None:
            return float(value.item())
        total = value.detach().clone()
        with self.peers():
            dist.all_reduce(total)
            return float(total.item())

    def any(self, flags: Sequence[bool], device: torch.device) -> tuple[bool, ...]:
        """Of each, whether it is so on any rank; the same answer on all.

        Raises:
            PeerLostError: another rank has ended.
        """
        if self._store is None:
            return tuple(flags)
        total = torch.tensor([float(flag) for flag in flags], device=device)
        with self.peers():
            dist.all_reduce(total)
            return tuple(count > 0 for count in total.tolist())

    def from_first(self, name: str, make: Callable[[], str]) -> str:
        """What rank 0 makes, on every rank; ``name`` is used once in an attempt.

        Raises:
            PeerLostError: rank 0 has ended.
        """
        if self._store is None:
            return make()
        if self.ranks.is_first:
            told = make()
            self._store.set(name, told)
            return told
        self._wait(name, self._store)
        return str(self._store.get(name).decode())

    def first_does(self, name: str, work: Callable[[], object]) -> None:
        """Rank 0 does it, the others wait until it is done; ``name`` is used once in an attempt.

        Raises:
            PeerLostError: rank 0 has ended.
        """

        def make() -> str:
            work()
            return ""

        self.from_first(name, make)

    def goodbye(self) -> None:
        """All is done: rank 0 leaves last, since the others still read what it told them."""
        if self._store is None:
            return
        if not self.ranks.is_first:
            self._store.set(f"goodbye-{self.ranks.rank}", "")
            return
        # Whoever does not say it in time has ended, and its own end says so; here all is done.
        with contextlib.suppress(dist.DistStoreError):
            self._store.wait([f"goodbye-{rank}" for rank in range(1, self.ranks.world_size)], GOODBYE)

    @contextlib.contextmanager
    def peers(self) -> Iterator[None]:
        """Inside, a rank that ended or does not answer is told apart from errors of one's own.

        Raises:
            PeerLostError: another rank has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self._store is None or not _is_of_peers(error):
                raise
            raise PeerLostError(
                f"rank {self.ranks.rank} waited for another rank of this attempt that has ended or does not answer. "
                "See why in that one's log."
            ) from error

    def _wait(self, name: str, store: Store) -> None:
        with self.peers():
            while True:
                with contextlib.suppress(dist.DistStoreError):  # Not yet: it only took longer than POLL.
                    store.wait([name], POLL)
                    return


@contextlib.contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[Group]:
    """The group of this process, as the environment has it; it is left however the work ends.

    Raises:
        PeerLostError: the others did not come, or one has ended.
    """
    if ranks.world_size == 1:
        yield Group(ranks)
        return
    try:
        # As torch reads the environment itself, so that a launcher that has a store of its own is understood as well.
        store, rank, world_size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world_size, timeout=TIMEOUT
        )
    except (RuntimeError, TimeoutError) as error:
        raise PeerLostError(
            f"rank {ranks.rank} of {ranks.world_size} did not meet the others: {error}. "
            "Check that MASTER_ADDR and MASTER_PORT are rank 0's, and see the other ranks' logs."
        ) from error
    try:
        group = Group(ranks, PrefixStore("attempt", store))
        yield group
        group.goodbye()
    finally:
        dist.destroy_process_group()


def _is_of_peers(error: RuntimeError) -> bool:
    """Gloo has no error of its own: its texts name its sources, or the connection."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "connection", "nccl"))
