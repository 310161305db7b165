"""What a queued job asks for, and when it is its turn: read off its record once, for all decisions to come. Pure.

A decision over a long queue takes as long as it takes to fetch the jobs' parts from all over the memory; so what counts
of a job stands together here, and stays with its record, which never changes.
"""

from __future__ import annotations

import datetime
import functools
from typing import NamedTuple

from workers.contract import JobSpec

UNITS = 10_000
"""Parts of a GPU, a CPU core or a GB, Ray's own resolution: in floats, three times 0.1 would not fit in 0.3."""

NEVER = float("inf")


class Needs(NamedTuple):
    """What an attempt of a job holds on each of its nodes while it runs.

    Attributes:
        accelerators: types in order of preference; empty means any will do.
        gpus: whole GPUs.
        cpus: CPU cores, in ``UNITS`` parts.
        memory: host memory in GB, in ``UNITS`` parts; ``None`` when none is reserved.
        share: the part of one GPU that it shares with others, in ``UNITS`` parts; 0 when it needs whole ones or none.
        nodes: how many nodes, of one accelerator type.
        labels: what each node must be labelled with, by key.
    """

    accelerators: tuple[str, ...]
    gpus: int
    cpus: int
    memory: int | None
    share: int = 0
    nodes: int = 1
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def any_gpu(self) -> bool:
        """Whether it needs a GPU or a part of one."""
        return self.gpus > 0 or self.share > 0

    @property
    def gpu_parts(self) -> int:
        """GPUs over all nodes, in ``UNITS`` parts: what quotas and shares count."""
        return (self.gpus * UNITS + self.share) * self.nodes

    def is_within(self, other: Needs) -> bool:
        """Whether this asks for no more than the other on no more nodes: where this has no room, the other has none.

        Of the same accelerator types and labels, or any.
        """
        return (
            self.gpus <= other.gpus
            and self.share <= other.share
            and self.cpus <= other.cpus
            and self.nodes <= other.nodes
            and (self.memory or 0) <= (other.memory or 0)
        )


class Turn(NamedTuple):
    """What counts of a queued job while the line is walked; the lower comes first, of one user.

    Attributes:
        below: its priority, negative.
        due: its deadline, seconds since the epoch; only the order counts. ``NEVER``: it has none.
        limit_s: how long an attempt may run, seconds; ``NEVER``: no limit.
    """

    below: int
    due: float
    submitted_ns: int
    sequence: int
    job_id: str
    limit_s: float
    user: str | None
    project: str | None
    needs: Needs


def needs_of(spec: JobSpec) -> Needs:
    """What the job needs. ``each``, which only a manifest can expand, is any type here."""
    held = spec.resources
    return Needs(
        accelerators=() if held.accelerators == "each" else held.accelerators,
        gpus=int(held.gpus),
        cpus=max(1, round(held.cpus * UNITS)),
        memory=None if held.memory_gb is None else round(held.memory_gb * UNITS),
        share=max(1, round(held.gpus * UNITS)) if 0 < held.gpus < 1 else 0,
        nodes=held.nodes,
        labels=tuple(sorted(held.labels.items())),
    )


def turn_of(spec: JobSpec, *, submitted_ns: int, sequence: int, user: str | None) -> Turn:
    """When it is the turn of a job that a user submitted then (ns since the epoch), after so many others."""
    schedule = spec.schedule
    return Turn(
        below=-schedule.priority,
        due=NEVER if schedule.deadline is None else _due(schedule.deadline),
        submitted_ns=submitted_ns,
        sequence=sequence,
        job_id=spec.job_id,
        limit_s=NEVER if schedule.time_limit_s is None else schedule.time_limit_s,
        user=user,
        project=spec.accounting.project,
        needs=needs_of(spec),
    )


@functools.lru_cache(maxsize=4096)
def _due(deadline: str) -> float:
    return datetime.datetime.fromisoformat(deadline).timestamp()
