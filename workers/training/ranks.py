"""Which of the processes that run one attempt together is this? By the environment, in ``torchrun``'s names.

Loads nothing heavy: an attempt asks before it may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.errors import InputError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """A process among those of its attempt.

    Attributes:
        rank: this one, from 0; ``world_size``: how many there are.
        local_rank: its place among those of this node, from 0.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it is the one that scores, reports and writes artifacts."""
        return self.rank == 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ranks:
        """As a launcher says it; one rank where it says nothing of a ``WORLD_SIZE``.

        Raises:
            InputError: a variable is missing or no such number.
        """
        if not environment.get("WORLD_SIZE"):
            return cls()
        if missing := [name for name in VARIABLES if not environment.get(name)]:
            raise InputError(f"{', '.join(missing)} not set beside WORLD_SIZE. Set all of {', '.join(VARIABLES)}.")
        rank, world_size, local_rank, _ = (_number(environment, name) for name in VARIABLES if name != "MASTER_ADDR")
        if not local_rank <= rank < world_size:
            raise InputError(
                f"RANK {rank} and LOCAL_RANK {local_rank} do not fit a WORLD_SIZE of {world_size}. "
                "Ranks are counted from 0, those of one node apart as well."
            )
        return cls(rank=rank, world_size=world_size, local_rank=local_rank)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r}. Set it to a whole number, 0 or more.")
    return int(text)
