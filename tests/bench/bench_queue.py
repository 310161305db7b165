"""How fast the queue is: jobs to their ends through the real controller on a fake cluster, and one large submission.

``python -m tests.bench.bench_queue`` prints both as JSON; ``--save`` writes ``results/queue.txt`` and ``.json``.
Attempts take no time of their own, so what is measured is what the controller, the decisions and the ledger take: an
upper bound of what any cluster can be given to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.cluster.fake import FakeCluster
from orchestrator.controller import Controller
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import RunRecord, Store
from tests.bench.environment import RESULTS, heading
from tests.bench.figures import table
from workers.contract import JobSpec

TYPES = ("H100", "A100", "L40S", "L4", "T4", "V100")
GPUS_PER_NODE = 8
STEP_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A queue that was driven to its end.

    Attributes:
        states: how many jobs ended in which state; ``attempts``: all that were launched.
        steps: of the controller's loop; ``seconds``: wall time of all of them.
        cpu_seconds: this process's CPU time, which a machine that does other work as well stretches less.
    """

    jobs: int
    gpus: int
    states: dict[str, int]
    attempts: int
    steps: int
    seconds: float
    cpu_seconds: float
    jobs_per_s: float


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One submission. ``again_seconds`` is what the same took once more, which adds nothing."""

    jobs: int
    seconds: float
    again_seconds: float


def nodes(count: int) -> tuple[NodeView, ...]:
    """Nodes of eight GPUs, of all types in turn."""
    return tuple(
        NodeView(
            node_id=f"node-{number:04d}",
            name=f"node-{number:04d}",
            accelerator=TYPES[number % len(TYPES)],
            simulated=True,
            gpus_total=GPUS_PER_NODE,
            gpus_free=GPUS_PER_NODE,
            cpus_total=64.0,
            cpus_free=64.0,
            memory_free_gb=None,
        )
        for number in range(count)
    )


def specs(count: int, *, seed: int = 0) -> tuple[JobSpec, ...]:
    """Jobs of one GPU mostly, some of a part, of several or of two nodes; every tenth needs an earlier one."""
    random_ = random.Random(seed)
    return tuple(
        JobSpec(
            job_id=f"job-{number:06d}",
            name="queue",
            task="digits",
            model="tiny/vit",
            resources={
                "gpus": random_.choice([1, 1, 1, 1, 0.5, 2, 4]),
                "nodes": 2 if number % 50 == 49 else 1,
                "accelerators": random_.choice([(), (), (TYPES[number % 6],), (TYPES[number % 6], TYPES[0])]),
            },
            schedule={"priority": random_.choice([0, 0, 0, 1])},
            retry={"failures": 1, "backoff_s": 1.0},
            needs=(f"job-{random_.randrange(number):06d}",) if number % 10 == 9 else (),
        )
        for number in range(count)
    )


def drive(folder: Path, *, jobs: int, node_count: int, seed: int = 0) -> Driven:
    """Submit jobs, of which one in fifty fails at first, and step the controller until all have ended."""
    made, places = specs(jobs, seed=seed), nodes(node_count)
    lasts_s = {spec.job_id: float(random.Random(f"{seed} {spec.job_id}").randrange(10, 600, 10)) for spec in made}
    cluster = FakeCluster(
        places,
        outcome=lambda spec, attempt: 1 if attempt == 1 and spec.job_id.endswith(("13", "63")) else 0,
        lasts_s=lambda spec, _: lasts_s[spec.job_id],
    )
    with contextlib.closing(Store(folder / "state.db")) as store:
        store.submit(run_record(), made)
        controller = Controller(store, cluster, clock_ns=cluster.clock)
        began_s, began_cpu_s, steps = time.perf_counter(), time.process_time(), 1
        while controller.step(wait_s=STEP_S):
            steps += 1
        seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        states = Counter(str(job.state) for job in store.jobs())
    return Driven(
        jobs=jobs,
        gpus=node_count * GPUS_PER_NODE,
        states=dict(states),
        attempts=len(cluster.history),
        steps=steps,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        jobs_per_s=jobs / seconds,
    )


def submit(folder: Path, *, jobs: int) -> Submitted:
    """Submit jobs to a new ledger, and then the same again."""
    made = specs(jobs)
    with contextlib.closing(Store(folder / "state.db")) as store:
        began_s = time.perf_counter()
        store.submit(run_record(), made)
        seconds = time.perf_counter() - began_s
        began_s = time.perf_counter()
        assert store.submit(run_record(), made) == 0
        return Submitted(jobs=jobs, seconds=seconds, again_seconds=time.perf_counter() - began_s)


def run_record() -> RunRecord:
    """The run of all jobs."""
    return RunRecord(run_id="bench", name="queue", manifest="", submitted_ns=1, host="bench", pid=1, user="ada")


def told(submitted: Submitted, driven: Driven) -> str:
    """Both in words."""
    ends = ", ".join(f"{count} {state}" for state, count in sorted(driven.states.items()))
    rows = [
        ["jobs driven to their ends", f"{driven.jobs} on {driven.gpus} GPUs of a fake cluster"],
        ["how they ended", f"{ends}; in {driven.attempts} attempts and {driven.steps} steps"],
        ["CPU", f"{driven.cpu_seconds:.1f} s, {1000 * driven.cpu_seconds / driven.jobs:.1f} ms a job"],
        ["wall, on a machine that may be shared", f"{driven.seconds:.1f} s, {driven.jobs_per_s:.0f} jobs/s"],
        [f"submission of {submitted.jobs} jobs", f"{submitted.seconds:.2f} s; again {submitted.again_seconds:.2f} s"],
    ]
    return table(["what", "figure"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what both take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument(
        "--nodes",
        type=int,
        default=125,
        help="of eight GPUs each; from 12 on each type has the two nodes that gangs need",
    )
    parser.add_argument("--submitted", type=int, default=1_000)
    parser.add_argument("--save", action="store_true", help="write results/queue.txt and .json")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        submitted = submit(root / "submit", jobs=given.submitted)
        driven = drive(root / "drive", jobs=given.jobs, node_count=given.nodes)
    found = {"submit": asdict(submitted), "drive": asdict(driven)}
    print(json.dumps(found, indent=2))
    if given.save:
        RESULTS.joinpath("queue.txt").write_text(f"{told(submitted, driven)}\n")
        result = {**heading(None), **found}
        RESULTS.joinpath("queue.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
