"""How long does a job take from its submission to its first line, and how many empty jobs end in a second?

    python -m tests.bench.bench_launch [--rounds N] [--jobs N] [--submitted N] [--save]

On a local cluster of two nodes, simulated boards, with a controller. Ours and the peer's take turns, so that what
disturbs the machine disturbs both. The peer is bare Ray (``tests/bench/bare.py``): tasks and actors of the same
resources on the same node. Its times end when its code runs; ours when the line is in the job's log file. A bare task
that has a GPU gets a process of its own from Ray, as a job does, and is told in an argument what to do, as a job is:
ours is to take at most 1.5 times as long. A ``task, worker kept`` (``max_calls=0``) runs in a process that others have
used, which no job may share.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import client
from orchestrator.cluster.local import LocalNode, local_cluster
from orchestrator.store import Store
from tests.bench.environment import RESULTS, heading
from tests.bench.figures import table
from workers.home import Home

TYPES = ("H100", "L4")
"""Accelerators of the cluster's nodes, one each; where one job is measured it runs on the first."""
EMPTY, REAL = "tests.bench.first_line", "workers.attempt"
OURS, TASK, PROCESS = "ours", "bare task", "bare actor with a process"
KEPT, TOLD_NOTHING = "bare task, worker kept", "bare task without an argument"
STEP_S = 0.002
PATIENCE_S = 120.0
MANIFEST = """\
version: 1
name: {name}
kind: evaluate
task: digits
model: tiny/vit
resources: {{gpus: 1, cpus: 1, accelerators: [{accelerators}]}}
seeds: [{seeds}]
"""

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of ours and of its peers.

    Attributes:
        what: in words; ``unit``: ``s``, or ``jobs/s``, of which more is better.
        samples: by who did it; what begins with ``ours`` is no peer.
        load: of the machine when it began, over one minute.
    """

    what: str
    unit: str
    samples: Samples
    load: float

    def rows(self) -> list[list[str]]:
        """Median, spread and ratio of each; a ratio above 1 says how much more ours takes."""
        medians = {who: statistics.median(values) for who, values in self.samples.items()}
        ours = medians[OURS]
        return [
            [
                self.what,
                who,
                f"{medians[who]:.3f} {self.unit}",
                f"{min(values):.3f} to {max(values):.3f}",
                str(len(values)),
                ""
                if who.startswith(OURS)
                else f"{ours / medians[who] if self.unit == 's' else medians[who] / ours:.2f}",
            ]
            for who, values in self.samples.items()
        ]


class Rig:
    """A local cluster with a controller of one ledger.

    Attributes:
        node_id: of the first type's node.
    """

    def __init__(self, address: str, home: Home) -> None:
        self.address, self.home = address, home
        with contextlib.closing(Store(home.state_db)) as store:
            record = client.serving_controller(store, home)
        nodes = json.loads(record.cluster)["nodes"]
        self.node_id = next(node["node_id"] for node in nodes if node["accelerator"] == TYPES[0])

    def manifest(self, name: str, *, types: Sequence[str] = TYPES[:1], seeds: int = 1) -> Path:
        path = self.home.root / f"{name}.yaml"
        numbers = ", ".join(map(str, range(seeds)))
        path.write_text(MANIFEST.format(name=name, accelerators=", ".join(types), seeds=numbers))
        return path

    def submit(self, manifest: Path) -> float:
        """From the submission of a job by a process that is up already to its first line, s; what it does then is not
        waited for."""
        began_ns = time.time_ns()
        (submission,) = client.submit([manifest], home=self.home)
        return self._first_line_s(submission.job_ids[0], began_ns)

    def submit_by_shell(self, manifest: Path) -> float:
        """The same from the start of the command, s."""
        began_ns = time.time_ns()
        command = [sys.executable, "-m", "orchestrator", "submit", str(manifest), "--json", "--home", self.home.root]
        said = subprocess.run(command, check=True, capture_output=True)
        return self._first_line_s(json.loads(said.stdout)[0]["job_ids"][0], began_ns)

    def bare_by_shell(self) -> float:
        """What a person types instead: a script that joins Ray and runs the task, s."""
        began_ns = time.time_ns()
        command = [sys.executable, "-m", "tests.bench.bare", self.address, self.node_id]
        said = subprocess.run(command, check=True, capture_output=True)
        return (int(said.stdout) - began_ns) / 1e9

    def empty_jobs(self, count: int) -> float:
        """Jobs that end at once, from their submission to the last one's end; jobs/s."""
        began_s = time.monotonic()
        (submission,) = client.submit([self.manifest("empty", types=[], seeds=count)], home=self.home)
        with contextlib.closing(Store(self.home.state_db)) as store:
            wait_until(lambda: not store.runs(unfinished=True), step_s=0.02, patience_s=20.0 * count)
            seconds = time.monotonic() - began_s
            states = {str(store.job(job_id).state) for job_id in submission.job_ids}
        assert states == {"succeeded"}, states
        return count / seconds

    def is_idle(self) -> bool:
        """Whether everything that ran here has ended."""
        with contextlib.closing(Store(self.home.state_db)) as store:
            return not store.runs(unfinished=True)

    def _first_line_s(self, job_id: str, began_ns: int) -> float:
        log = self.home.attempt_folder(job_id, 1) / "log.txt"
        wait_until(lambda: log.exists() and log.stat().st_size > 0)
        first_ns = time.time_ns()
        client.cancel([job_id], home=self.home, observer=Silent())
        wait_until(self.is_idle, step_s=0.05)
        return (first_ns - began_ns) / 1e9


def wait_until(condition: Callable[[], bool], *, step_s: float = STEP_S, patience_s: float = PATIENCE_S) -> None:
    """Returns once the condition holds, ``step_s`` later at most."""
    deadline_s, pause = time.monotonic() + patience_s, threading.Event()
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {patience_s:g} s in vain")
        pause.wait(step_s)


@contextlib.contextmanager
def controller(address: str, home: Home, program: str) -> Iterator[Rig]:
    """A controller whose attempts run ``program``, and an agent on every node."""
    home.root.mkdir()
    options = client.ControllerOptions(program=program)
    client.up(home, address=address, options=options, observer=Silent())
    try:
        yield Rig(address, home)
    finally:
        client.down(home, cancel=True, observer=Silent())


class Silent:
    """Wants to know nothing."""

    def say(self, text: str) -> None: ...

    def planned(self, plan: object) -> None: ...

    def progressed(self, home: Home, jobs: object) -> None: ...


@contextlib.contextmanager
def peers(address: str) -> Iterator[None]:
    """Joined to the cluster as the peer."""
    from tests.bench import bare  # Ray reads its token when it is imported.

    bare.join(address)
    try:
        yield
    finally:
        bare.leave()


def in_turn(
    rounds: int, asked: Mapping[str, Callable[[], float]], *, before_each: Callable[[], object] = lambda: None
) -> Samples:
    """Each once, over and over; a first round, in which everything is met for the first time, does not count."""
    samples: dict[str, list[float]] = {who: [] for who in asked}
    for number in range(rounds + 1):
        for who, ask in asked.items():
            before_each()
            value = ask()
            if number:
                samples[who].append(value)
    return samples


def seconds(run: Callable[[str], int], node_id: str) -> float:
    """From the call to when the peer says that its first line ran."""
    began_ns = time.time_ns()
    return (run(node_id) - began_ns) / 1e9


def rate(run: Callable[[int], None], count: int) -> float:
    """Per second, from the call to its return."""
    began_s = time.monotonic()
    run(count)
    return count / (time.monotonic() - began_s)


def measure_latency(rig: Rig, what: str, rounds: int) -> Measured:
    """One job from a process that is up, against tasks and an actor of a driver that has joined.

    Each begins on a node that the one before has left by Ray's own books, or its wait would be measured as this one's.
    """
    from tests.bench import bare

    manifest, node_id = rig.manifest("one"), rig.node_id
    load = os.getloadavg()[0]
    with peers(rig.address):
        samples = in_turn(
            rounds,
            {
                OURS: lambda: rig.submit(manifest),
                TASK: lambda: seconds(bare.run_task, node_id),
                TOLD_NOTHING: lambda: seconds(bare.run_told_nothing, node_id),
                PROCESS: lambda: seconds(bare.run_process, node_id),
            },
            before_each=lambda: wait_until(lambda: bare.is_free(node_id)),
        )
        # Last: any other task would be run by the worker that this one leaves.
        kept = in_turn(rounds, {KEPT: lambda: seconds(bare.run_kept, node_id)})
    return Measured(what=what, unit="s", samples={**samples, **kept}, load=load)


def measure_shell(rig: Rig, rounds: int) -> Measured:
    """The command, against a script that joins Ray."""
    manifest, load = rig.manifest("one"), os.getloadavg()[0]
    samples = in_turn(rounds, {OURS: lambda: rig.submit_by_shell(manifest), "bare script": rig.bare_by_shell})
    return Measured(what="from the shell to the first line", unit="s", samples=samples, load=load)


def measure_rate(rig: Rig, rounds: int, jobs: int) -> Measured:
    """Empty jobs, against as many tasks and actors on the same two nodes."""
    from tests.bench import bare

    load = os.getloadavg()[0]
    with peers(rig.address):
        samples = in_turn(
            rounds,
            {
                OURS: lambda: rig.empty_jobs(jobs),
                TASK: lambda: rate(bare.many_tasks, jobs),
                PROCESS: lambda: rate(bare.many_processes, jobs),
            },
        )
        kept = in_turn(rounds, {KEPT: lambda: rate(bare.many_kept, jobs)})  # last, as above
    return Measured(what=f"{jobs} empty jobs", unit="jobs/s", samples={**samples, **kept}, load=load)


def measure_submit(rig: Rig, folder: Path, rounds: int, jobs: int) -> Measured:
    """One submission of many jobs to a new ledger that nobody drives, which is told of the rig's controller."""
    load, manifest = os.getloadavg()[0], rig.manifest("many", seeds=jobs)
    with contextlib.closing(Store(rig.home.state_db)) as store:
        record = client.serving_controller(store, rig.home)
    samples: dict[str, list[float]] = {OURS: [], "ours, from the shell": []}
    for number in range(rounds):
        homes = [Home(folder / f"{kind}-{number}") for kind in ("call", "shell")]
        for home in homes:
            with contextlib.closing(Store(home.state_db)) as store:
                store.note_controller(dataclasses.replace(record, beat_ns=time.time_ns()))
        began_s = time.monotonic()
        (submission,) = client.submit([manifest], home=homes[0])
        samples[OURS].append(time.monotonic() - began_s)
        assert submission.new == jobs
        began_s = time.monotonic()
        command = [sys.executable, "-m", "orchestrator", "submit", str(manifest), "--home", str(homes[1].root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        samples["ours, from the shell"].append(time.monotonic() - began_s)
    return Measured(what=f"submit of {jobs:,} jobs", unit="s", samples=samples, load=load)


def measure(rounds: int, jobs: int, submitted: int, *, say: Callable[[str], None]) -> Iterator[Measured]:
    """All of it, on one cluster."""
    nodes = [LocalNode(accelerator=name, board_uuid=None) for name in TYPES]
    with tempfile.TemporaryDirectory() as name, local_cluster(nodes, say=say) as cluster:
        folder = Path(name)
        with controller(cluster.address, Home(folder / "real"), REAL) as rig:
            yield measure_latency(rig, "submit to the first line, its boards leased", rounds)
            yield measure_shell(rig, rounds)
            yield measure_submit(rig, folder, rounds, submitted)
        with controller(cluster.address, Home(folder / "empty"), EMPTY) as rig:
            yield measure_latency(rig, "submit to the first line of an empty job", rounds)
            yield measure_rate(rig, max(1, rounds // 2), jobs)


def report(found: Sequence[Measured]) -> str:
    """The table; the last column is how many times a peer's time ours takes."""
    rows = [row for each in found for row in each.rows()]
    loads = ", ".join(f"{each.load:.1f}" for each in found)
    columns = ("what", "who", "median", "spread", "rounds", "ours takes ×")
    return f"{table(columns, rows)}\n\nload of the machine at the start of each: {loads}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of each kind (default 7)")
    parser.add_argument("--jobs", type=int, default=50, help="empty jobs at once (default 50)")
    parser.add_argument("--submitted", type=int, default=1_000, help="jobs in one submission (default 1000)")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, help="folder to write launch.{json,txt} to")
    given = parser.parse_args(arguments)
    found = []
    for each in measure(given.rounds, given.jobs, given.submitted, say=lambda text: print(text, file=sys.stderr)):
        found.append(each)
        print(report([each]), file=sys.stderr, flush=True)
    about = {**heading(None), "truth": "wall time of one machine's clock; simulated boards, real processes"}
    text = f"{report(found)}\n\n{json.dumps(about)}\n"
    print(text, end="")
    if given.save is not None:
        given.save.mkdir(exist_ok=True)
        (given.save / "launch.txt").write_text(text)
        measured = [dataclasses.asdict(each) for each in found]
        (given.save / "launch.json").write_text(json.dumps({**about, "measured": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
