"""The peer: what a person writes who has Ray and no orchestrator. Tasks, and actors that run a process.

``python -m tests.bench.bare ADDRESS NODE_ID`` joins, runs one task on that node, and prints what it returns.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import ray
from ray._private.state import available_resources_per_node

NODE_ID_LABEL = "ray.io/node-id"
RESOURCES = {"num_cpus": 1, "num_gpus": 1}
"""Those of the jobs they are compared with."""


JOB = "task: digits, model: tiny/vit"
"""What a task is told. Ray imports numpy, pyarrow and pydantic in a worker before the first argument is read."""


@ray.remote(**RESOURCES, max_retries=0)
def task(job: str) -> int:
    """When its first line ran, ns since the epoch. Ray runs a task that has a GPU in a worker that it starts for it."""
    return time.time_ns()


@ray.remote(**RESOURCES, max_retries=0)
def task_told_nothing() -> int:
    """The same without an argument."""
    return time.time_ns()


@ray.remote(**RESOURCES, max_retries=0, max_calls=0)
def task_in_a_kept_worker(job: str) -> int:
    """The same in a worker that others ran in before, as Ray has it for tasks without a GPU."""
    return time.time_ns()


@ray.remote(**RESOURCES)
class Process:
    """Runs one program of its own to its end, as a job is one."""

    def run(self, job: str) -> int:
        """When its first line came, ns since the epoch."""
        with subprocess.Popen([sys.executable, "-m", "tests.bench.first_line"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            return time.time_ns()


def join(address: str) -> None:
    """Join the cluster as a driver."""
    ray.init(address=address, namespace="bare", log_to_driver=False, logging_level=logging.ERROR)


def leave() -> None:
    """Leave it."""
    ray.shutdown()


def is_free(node_id: str) -> bool:
    """Whether nobody holds what the node has of what a task asks for."""
    total = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id)
    free = available_resources_per_node()[node_id]
    return all(free.get(kind) == total[kind] for kind in ("CPU", "GPU"))


def run_task(node_id: str) -> int:
    """A task as it is."""
    return int(ray.get(task.options(label_selector={NODE_ID_LABEL: node_id}).remote(JOB)))


def run_told_nothing(node_id: str) -> int:
    """A task without an argument."""
    return int(ray.get(task_told_nothing.options(label_selector={NODE_ID_LABEL: node_id}).remote()))


def run_kept(node_id: str) -> int:
    """A task in a worker that is there already, if one was started for another a moment ago."""
    return int(ray.get(task_in_a_kept_worker.options(label_selector={NODE_ID_LABEL: node_id}).remote(JOB)))


def run_process(node_id: str) -> int:
    """An actor with a process; ended when that has ended."""
    actor = Process.options(label_selector={NODE_ID_LABEL: node_id}).remote()
    first_ns = int(ray.get(actor.run.remote(JOB)))
    ray.kill(actor)
    return first_ns


def many_tasks(count: int) -> None:
    """All submitted at once; returns when all have ended."""
    ray.get([task.remote(JOB) for _ in range(count)])


def many_kept(count: int) -> None:
    """The same in workers that are kept."""
    ray.get([task_in_a_kept_worker.remote(JOB) for _ in range(count)])


def many_processes(count: int) -> None:
    """Actors with a process; each is ended as soon as its process has ended."""
    actors = [Process.remote() for _ in range(count)]
    running = {actor.run.remote(JOB): actor for actor in actors}
    while running:
        done, _ = ray.wait(list(running))
        for one in done:
            ray.kill(running.pop(one))


if __name__ == "__main__":
    join(sys.argv[1])
    print(run_task(sys.argv[2]), flush=True)
