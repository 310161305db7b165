"""Who holds which device of a synthetic cluster when: jobs of one to eight GPUs follow each other on each node.

Between them is idle time; some fail and are tried again, some share a device, some stretches carry flags.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from workers.contract import Phase

DAY_S = 86_400
PHASES = tuple(Phase)
PARTS = (0.03, 0.06, 0.76, 0.1, 0.05)
"""Of a job's time, by phase."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a cluster, and for how long; ``open_days``: the last days, in files of ``file_minutes`` each."""

    nodes: int = 125
    gpus: int = 8
    days: int = 30
    jobs: int = 10_000
    seed: int = 4
    file_minutes: int = 15
    open_days: int = 1


FULL = Size()
TINY = Size(nodes=2, gpus=2, days=2, jobs=6, file_minutes=240)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """One attempt's hold on one device, or nobody's. Seconds from the start; ``attempt`` 0 is idle."""

    gpu: int
    start_s: int
    end_s: int
    job: int = -1
    attempt: int = 0
    phase: int = -1
    half: bool = False
    quality: int = 0


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the store is told of one attempt."""

    job: int
    number: int
    node: int
    start_s: int
    end_s: int
    failed: bool
    spans: tuple[tuple[int, int, int], ...]


def schedule(
    jobs: range, node: int, size: Size, days: range, rng: np.random.Generator
) -> tuple[list[Hold], list[Attempt]]:
    """Which job holds which device when: each takes the devices that are free first, after some idle time."""
    begin, end = days.start * DAY_S, days.stop * DAY_S
    free, holds, attempts = [begin] * size.gpus, [], []
    widths = [width for width in (1, 1, 1, 2, 4, 8) if width <= size.gpus]
    mean_s = 0.75 * (end - begin) * size.gpus / max(1, len(jobs)) / (sum(widths) / len(widths))
    for job in jobs:
        width = int(rng.choice(widths))
        devices = sorted(range(size.gpus), key=lambda gpu: (free[gpu], gpu))[:width]
        start = max(free[gpu] for gpu in devices) + int(rng.integers(60, max(61, int(0.1 * mean_s))))
        tries = 2 if rng.random() < 0.08 else 1
        half = width == 1 and rng.random() < 0.05
        for number in range(1, tries + 1):
            failed = number < tries
            length = max(120, int(rng.gamma(2.0, mean_s / 2)) // (4 if failed else 1))
            if start + length > end - 60:
                break
            spans = _spans(start, length, failed=failed)
            attempts.append(
                Attempt(
                    job=job, number=number, node=node, start_s=start, end_s=start + length, failed=failed, spans=spans
                )
            )
            flag = int(rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 2, 3]))
            for gpu, (phase, since, until) in itertools.product(devices, spans):
                quality = 1 if half else flag if phase == 2 else 0
                holds.append(
                    Hold(
                        gpu=gpu,
                        start_s=since,
                        end_s=until,
                        job=job,
                        attempt=number,
                        phase=phase,
                        half=half,
                        quality=quality,
                    )
                )
                if half:
                    holds.append(Hold(gpu=gpu, start_s=since, end_s=until, half=True, quality=1))
            for gpu in devices:
                if start > free[gpu]:
                    holds.append(Hold(gpu=gpu, start_s=free[gpu], end_s=start))
                free[gpu] = start + length
            start += length + 30
    holds += [Hold(gpu=gpu, start_s=free[gpu], end_s=end) for gpu in range(size.gpus) if free[gpu] < end]
    return holds, attempts


def device_spans(holds: list[Hold], node: int) -> list[tuple[int, str, int, int]]:
    """Job, device, start and end of every attempt on every device."""
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    for hold in holds:
        if hold.job >= 0:
            key = (hold.job, hold.attempt, hold.gpu)
            start, end = found.get(key, (hold.start_s, hold.end_s))
            found[key] = (min(start, hold.start_s), max(end, hold.end_s))
    return [(job, f"GPU-{node:03d}-{gpu}", *span) for (job, _, gpu), span in found.items()]


def _spans(start: int, length: int, *, failed: bool) -> tuple[tuple[int, int, int], ...]:
    """Phase, start and end; an attempt that fails does so while it trains."""
    last = 3 if failed else len(PHASES)
    edges = [start + int(length * part / sum(PARTS[:last])) for part in itertools.accumulate(PARTS[:last], initial=0)]
    edges[-1] = start + length
    return tuple((phase, *edge) for phase, edge in enumerate(itertools.pairwise(edges)) if edge[0] < edge[1])
