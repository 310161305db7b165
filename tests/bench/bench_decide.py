"""``python -m tests.bench.bench_decide``: how long a scheduling decision takes on a large cluster with a long queue.

1,000 GPUs of 6 types on nodes of 8, 4, 2 and 1, and 10,000 queued jobs of 20 users, in several mixes. The baseline is a
plain sort of the same queue by priority and submission, timed in the same run: what any queue has to do.

What is timed is the CPU time of the thread, which a decision neither leaves nor waits in, so that others on the machine
do not count; what they take of caches and shared cores only ever adds, so each mix is timed in ``--repeats`` series and
the best counts: the lowest p50, and the lowest p99. ``--save`` writes ``results/decide.txt`` and ``.json``.

As in the controller (``orchestrator.serve``) the jobs are in memory before, are the same from one decision to the next,
and are set aside from the collector of garbage, which looks as seldom; what it takes of a decision counts. The first
decision, which reads each job for the first time, is told apart; so is one whose reasons to wait are all worded, which
the controller does not need and ``status`` does.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState
from orchestrator.quotas import Quota
from orchestrator.scheduling.placement import Decisions, Snapshot, decide
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from orchestrator.serve import YOUNG_OBJECTS
from tests.bench.environment import RESULTS, heading
from tests.bench.figures import table
from workers.contract import JobSpec

NOW_NS = 1_800_000_000_000_000_000
TYPES = (("H100", 25, 8), ("A100-80GB", 25, 8), ("A100", 50, 4), ("L40S", 50, 4), ("L4", 60, 2), ("T4", 80, 1))
"""Accelerator type, nodes, GPUs on each: 1,000 GPUs."""

USERS = tuple(f"user-{number:02}" for number in range(20))
HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: ``share`` of the nodes of each type."""

    jobs: int
    share: float


FULL = Size(jobs=10_000, share=1.0)
TINY = Size(jobs=60, share=0.05)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One mix.

    Attributes:
        p50_ms: of the best series; ``p99_ms`` likewise.
        first_ms: the first decision; ``told_ms``: one with all reasons, the fastest.
        sort_ms: the baseline, its fastest.
    """

    mix: str
    gpus: int
    queued: int
    started: int
    preempted: int
    p50_ms: float
    p99_ms: float
    first_ms: float
    told_ms: float
    sort_ms: float

    @property
    def ratio(self) -> float:
        """The median against a plain sort."""
        return self.p50_ms / self.sort_ms


def nodes(size: Size) -> tuple[NodeView, ...]:
    """The cluster, empty. Every node has a label of its own, as Ray's have."""
    made = []
    for accelerator, count, gpus in TYPES:
        for number in range(max(2, round(count * size.share))):
            name = f"{accelerator.lower()}-{number:03}"
            cpus, memory_gb = 8.0 * gpus, 64.0 * gpus
            made.append(
                NodeView(
                    node_id=f"id-{name}",
                    name=name,
                    accelerator=accelerator,
                    simulated=False,
                    gpus_total=gpus,
                    gpus_free=gpus,
                    cpus_total=cpus,
                    cpus_free=cpus,
                    memory_free_gb=memory_gb,
                    memory_total_gb=memory_gb,
                    labels={"ray.io/node-id": f"id-{name}", "zone": "ab"[number % 2]},
                )
            )
    return tuple(made)


def record(number: int, *, priority: int = 0, limit_s: float | None = None, **resources: Any) -> JobRecord:
    """A queued job of one of the users."""
    spec = JobSpec(
        job_id=f"job-{number:05}",
        task="digits",
        model="tiny/vit",
        resources=resources,
        schedule={"priority": priority, "time_limit_s": limit_s},
    )
    return JobRecord(
        spec=spec,
        run_id=f"run-{number // 100:03}",
        sequence=number % 100,
        state=JobState.QUEUED,
        reason=None,
        submitted_ns=NOW_NS - (number * 7919) % 10_000,
        user=USERS[number % len(USERS)],
    )


def same(number: int, draw: random.Random) -> JobRecord:
    """All want one GPU of any type."""
    return record(number)


def different(number: int, draw: random.Random) -> JobRecord:
    """No two want the same: cores and memory differ by hundredths, types and limits by chance."""
    types = draw.sample([name for name, _, _ in TYPES], draw.randint(0, 3))
    return record(
        number,
        priority=draw.randint(0, 3),
        limit_s=draw.choice([None, 600.0 + number]),
        accelerators=tuple(types),
        gpus=draw.choice([0.25, 0.5, 1, 1, 1, 1, 2, 4, 8]),
        cpus=1 + number % 4 + number / 100_000,
        memory_gb=draw.choice([None, 8 + number / 1000]),
        labels=draw.choice([{}, {}, {}, {"zone": "a"}]),
    )


def usual(number: int, draw: random.Random) -> JobRecord:
    """What sweeps look like: a hundred jobs of one kind, then others."""
    kind = random.Random(number // 100)
    name = kind.choice([name for name, _, _ in TYPES])
    return record(
        number,
        priority=kind.choice([0, 0, 0, 1, 2]),
        limit_s=kind.choice([None, 3600.0, 14_400.0]),
        accelerators=draw.choice([(name,), (name, "L4"), ()]),
        gpus=kind.choice([0.5, 1, 1, 1, 2, 4]),
        cpus=kind.choice([1.0, 4.0]),
    )


def gangs(number: int, draw: random.Random) -> JobRecord:
    """Every other job wants several whole nodes."""
    if number % 2:
        return usual(number, draw)
    accelerator, _, gpus = draw.choice(TYPES)
    limit_s = draw.choice([None, 7200.0])
    return record(number, limit_s=limit_s, accelerators=(accelerator,), gpus=gpus, nodes=draw.choice([2, 4]))


def occupied(cluster: tuple[NodeView, ...]) -> tuple[tuple[NodeView, ...], tuple[JobRecord, ...]]:
    """Every GPU but each fiftieth is held by a job of one GPU, half of them with a time limit."""
    full, running = [], []
    for node in cluster:
        held = [number for number in range(node.gpus_total) if (len(running) + number) % 50]
        for _ in held:
            number = len(running)
            waiting = record(90_000 + number, limit_s=None if number % 2 else 7200.0, accelerators=(), gpus=1)
            attempt = AttemptRecord(
                number=1,
                state=AttemptState.RUNNING,
                reason=None,
                nodes=(node.node_id,),
                accelerator=node.accelerator,
                started_ns=NOW_NS - (number % 60) * 60_000_000_000,
                ended_ns=None,
            )
            running.append(replace(waiting, state=JobState.RUNNING, attempts=(attempt,)))
        memory_gb = node.memory_free_gb
        cpus_free = node.cpus_free - len(held)
        full.append(replace(node, gpus_free=node.gpus_free - len(held), cpus_free=cpus_free, memory_free_gb=memory_gb))
    return tuple(full), tuple(running)


def mixes(size: Size) -> dict[str, Snapshot]:
    """The snapshots that are timed, by name."""
    empty = nodes(size)
    full, running = occupied(empty)
    usage = {user: 1000.0 * number for number, user in enumerate(USERS)}
    quotas = (Quota(scope="user", name="*", gpus=100.0, queued_jobs=None),)

    def snapshot(job: Callable[[int, random.Random], JobRecord], *, busy: bool, limited: bool = False) -> Snapshot:
        draw = random.Random(20_261_125)
        return Snapshot(
            now_ns=NOW_NS,
            cluster=ClusterView(nodes=full if busy else empty),
            queued=tuple(job(number, draw) for number in range(size.jobs)),
            running=running if busy else (),
            usage=usage,
            quotas=quotas if limited else (),
        )

    return {
        "busy, usual jobs": snapshot(usual, busy=True),
        "empty, usual jobs": snapshot(usual, busy=False),
        "busy, all the same": snapshot(same, busy=True),
        "empty, all the same": snapshot(same, busy=False),
        "busy, all different": snapshot(different, busy=True),
        "empty, all different": snapshot(different, busy=False),
        "busy, half gangs": snapshot(gangs, busy=True),
        "empty, half gangs": snapshot(gangs, busy=False),
        "busy, usual jobs, quotas": snapshot(usual, busy=True, limited=True),
    }


def series(work: Callable[[], object], calls: int) -> list[float]:
    """CPU seconds of each call."""
    took = []
    for _ in range(calls):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return took


def p99(took: Sequence[float]) -> float:
    """The 99th percentile, by nearest rank."""
    return sorted(took)[max(0, -(-len(took) * 99 // 100) - 1)]


def measure(mix: str, snapshot: Snapshot, *, repeats: int, calls: int) -> Timing:
    """Time one mix, and the plain sort beside it."""
    first_s = min(series(lambda: decide(snapshot), 1))
    decided: Decisions = decide(snapshot)
    found, sorts, worded = [], [], []
    for _ in range(repeats):
        found.append(series(lambda: decide(snapshot), calls))
        worded += series(lambda: decide(snapshot).waiting, max(1, calls // 10))
        sorts += series(lambda: sorted(snapshot.queued, key=_plainly), calls)
    return Timing(
        mix=mix,
        gpus=sum(node.gpus_total for node in snapshot.cluster.nodes),
        queued=len(snapshot.queued),
        started=len(decided.placements),
        preempted=len(decided.preemptions),
        p50_ms=1000 * min(map(statistics.median, found)),
        p99_ms=1000 * min(map(p99, found)),
        first_ms=1000 * first_s,
        told_ms=1000 * min(worded),
        sort_ms=1000 * min(sorts),
    )


def _plainly(job: JobRecord) -> tuple[int, int]:
    return -job.spec.schedule.priority, job.submitted_ns


def _figures(one: Timing) -> tuple[float, ...]:
    return one.p50_ms, one.p99_ms, one.first_ms, one.told_ms, one.sort_ms, one.ratio


def told(timings: Sequence[Timing]) -> str:
    """The table."""
    columns = [
        "mix",
        "GPUs",
        "queued",
        "started",
        "preempted",
        "p50 ms",
        "p99 ms",
        "first ms",
        "told ms",
        "sort ms",
        "p50 / sort",
    ]
    rows = [
        [
            one.mix,
            *map(str, (one.gpus, one.queued, one.started, one.preempted)),
            *(f"{figure:.1f}" for figure in _figures(one)),
        ]
        for one in timings
    ]
    return table(columns, rows)


def main() -> None:
    """Time all mixes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="series of each mix; the best counts")
    parser.add_argument("--calls", type=int, default=100, help="decisions of a series")
    parser.add_argument("--save", action="store_true", help="write results/decide.txt and .json")
    given = parser.parse_args()
    snapshots = mixes(FULL)
    gc.set_threshold(YOUNG_OBJECTS)
    gc.collect()
    gc.freeze()
    timings = [measure(mix, snapshot, repeats=given.repeats, calls=given.calls) for mix, snapshot in snapshots.items()]
    how = (
        f"CPU time; best of {given.repeats} series of {given.calls} decisions on a machine that may have been shared; "
        "jobs set aside from the collector of garbage, as in the controller"
    )
    text = f"{told(timings)}\n\n{how}\n"
    print(text)
    if given.save:
        RESULTS.joinpath("decide.txt").write_text(text)
        result = {**heading(None), "how": how, "timings": [asdict(one) for one in timings]}
        RESULTS.joinpath("decide.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
