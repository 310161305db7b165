"""Several processes train one model: real ranks over Gloo, each with a lease of its own at one agent of two boards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agents import RunningAgent, running_agent
from tests.clusters import wait_until
from workers.contract import Phase
from workers.home import Home
from workers.metric_log import MetricSample, read_metrics
from workers.progress import read_progress
from workers.telemetry.energy_read import read_energy

QUICK = {
    "task": "digits",
    "model": "tiny/vit",
    "adapter": {"method": "lora"},
    # 33 over two ranks is 17 and 16: parts that weigh differently.
    "training": {"max_steps": 6, "batch_size": 33},
    "evaluation": {"max_samples": 100},
    "resources": {"gpus": 2},
}
LONG = {"max_steps": 10_000, "epochs": 1000, "batch_size": 33}
"""More than a test waits for."""
PATIENCE_S = 240.0
"""Each rank loads torch; on a machine that others use as well that takes its time."""
COMMAND = (sys.executable, "-m", "workers.attempt")
TOLERANCE = 1e-4
"""Of a loss, relative: two ranks add the same float32 numbers in another order, over six steps."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def names_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    """The environment as ``torchrun`` makes it, of ranks on one node."""
    names = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}


@dataclass(frozen=True)
class Started:
    """The ranks of one attempt that were started."""

    job: Path
    home: Home
    ranks: tuple[subprocess.Popen[bytes], ...]

    def ended(self) -> list[int]:
        return [rank.wait(PATIENCE_S) for rank in self.ranks]

    def said(self, rank: int) -> str:
        return self.job.with_name(f"said-{rank}.txt").read_text()

    def metrics(self, attempt: int = 1) -> tuple[MetricSample, ...]:
        return read_metrics(self.home, self.job.parent.name, attempt)


class Starts:
    """Starts ranks at one agent; what still runs at the end is killed."""

    def __init__(self, agent: RunningAgent) -> None:
        self.agent = agent
        self.all: list[subprocess.Popen[bytes]] = []

    def __call__(self, folder: Path, world_size: int, *, attempt: int = 1, **changed: object) -> Started:
        folder.mkdir(exist_ok=True)
        job = folder / "job.json"
        job.write_text(json.dumps({**QUICK, "job_id": folder.name, **changed}))
        command = [*COMMAND, str(job), "--home", str(self.agent.home.root), "--attempt", str(attempt)]
        command += ["--agent", str(self.agent.socket)]
        ranks, port = [], free_port()
        for rank in range(world_size):
            environment = {**os.environ, **names_of(rank, world_size, port)}
            with (folder / f"said-{rank}.txt").open("wb") as said:
                ranks.append(
                    subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
                )
        self.all += ranks
        return Started(job, self.agent.home, tuple(ranks))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running_agent(tmp_path_factory.mktemp("agent"), meter="simulated:H100,H100") as found:
        yield found


@pytest.fixture
def start(agent: RunningAgent) -> Iterator[Starts]:
    starts = Starts(agent)
    yield starts
    for rank in starts.all:
        rank.kill()
        rank.wait()


def wait_until_in(started: Started, phase: Phase, *, attempt: int = 1) -> None:
    def is_there() -> bool:
        assert all(rank.poll() is None for rank in started.ranks), [started.said(n) for n in range(len(started.ranks))]
        progress = read_progress(started.home, started.job.parent.name, attempt)
        return progress is not None and progress.phase is phase and progress.done > progress.carried

    wait_until(is_there, timeout_s=PATIENCE_S, what=f"the first steps of {phase}")


def losses_of(samples: Sequence[MetricSample]) -> list[float]:
    return [s.value for s in samples if s.name == "loss" and s.phase is Phase.TRAIN and s.rank == 0]


def test_ranks_without_an_agent_in_common_are_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps(QUICK))
    environment = {**os.environ, **names_of(1, 2, 29_500)}
    ended = subprocess.run(
        [*COMMAND, str(job), "--home", str(tmp_path / "home")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("several ranks lease from one agent of their node.")
    assert (tmp_path / "reason-1.txt").read_text() == ended.stderr.rstrip("\n")


def test_a_rank_that_dies_ends_the_other_which_says_so(tmp_path: Path, start: Starts) -> None:
    started = start(tmp_path / "dies", 2, training=LONG)
    wait_until_in(started, Phase.TRAIN)
    started.ranks[1].kill()
    assert started.ended() == [4, -signal.SIGKILL]
    sentence = started.job.with_name("reason.txt").read_text()
    assert sentence.startswith("rank 0 waited for another rank of this attempt that has ended or does not answer.")


def test_two_ranks_leave_after_one_step_and_one_goes_on_where_they_were(tmp_path: Path, start: Starts) -> None:
    started = start(tmp_path / "leaves", 2, training=LONG)
    wait_until_in(started, Phase.TRAIN)
    # One is enough: they agree.
    started.ranks[1].send_signal(signal.SIGUSR1)
    assert started.ended() == [75, 75], (started.said(0), started.said(1))
    trained = [s for s in started.metrics() if s.phase is Phase.TRAIN and s.step is not None]
    last = max(s.step or 0 for s in trained)
    assert [max(s.step or 0 for s in trained if s.rank == rank) for rank in (0, 1)] == [last, last]
    again = start(tmp_path / "leaves", 1, attempt=2, training=LONG, resources={"gpus": 1})
    wait_until_in(again, Phase.TRAIN, attempt=2)
    again.ranks[0].send_signal(signal.SIGUSR1)
    assert again.ended() == [75], again.said(0)
    assert again.said(0).splitlines()[1:] == [
        f"goes on from step {last}, from a checkpoint of attempt 1.",
        "left as asked; the job goes on from its newest checkpoint.",
    ]
    assert min(s.step for s in again.metrics(2) if s.phase is Phase.TRAIN and s.step is not None) == last + 1
    values = {s.name: s.value for s in again.metrics(2)}
    assert values["resumed_from_attempt"] == values["scores_from_attempt"] == 1
    scores = [
        [(s.name, s.value) for s in samples if s.name.startswith("score/") and s.phase is Phase.BASELINE]
        for samples in (started.metrics(), again.metrics(2))
    ]
    assert scores[0] == scores[1] != []


def test_two_ranks_give_the_losses_of_one_and_each_joule_and_sample_is_counted_once(
    tmp_path: Path, agent: RunningAgent, start: Starts
) -> None:
    two = start(tmp_path / "two", 2)
    assert two.ended() == [0, 0], (two.said(0), two.said(1))
    one = start(tmp_path / "one", 1, resources={"gpus": 1})
    assert one.ended() == [0], one.said(0)
    losses = losses_of(two.metrics())
    assert losses == pytest.approx(losses_of(one.metrics()), rel=TOLERANCE, abs=0)
    assert len(losses) == 6
    trained = [s for s in two.metrics() if s.name == "samples" and s.phase is Phase.TRAIN]
    assert {rank: sum(s.value for s in trained if s.rank == rank) for rank in (0, 1)} == {0: 6 * 17, 1: 6 * 16}
    scores = [s for s in two.metrics() if s.name == "score/accuracy"]
    assert [(s.rank, s.phase) for s in scores] == [(0, Phase.BASELINE), (0, Phase.EVALUATE)]
    entries = [entry for entry in read_energy(agent.home, job_ids=["two"]) if entry.kind == "gpu"]
    assert len({entry.device for entry in entries}) == 2
    booked = [two.said(rank).split("done, ")[1].split(" J")[0].replace(",", "") for rank in (0, 1)]
    # Each rank rounds what it says to a tenth of a joule.
    assert sum(entry.energy_mj for entry in entries) / 1000 == pytest.approx(sum(map(float, booked)), abs=0.1)
    folder = agent.home.attempt_folder("two", 1)
    told = [json.loads((folder / name).read_text()) for name in ("environment.json", "environment-1.json")]
    assert [(one["rank"], one["ranks"], len(one["devices"])) for one in told] == [(0, 2, 1), (1, 2, 1)]
    assert not agent.home.checkpoints("two").exists()


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_that_split_a_model_leave_as_asked_and_one_goes_on_and_scores_it(
    tmp_path: Path, start: Starts, stage: int
) -> None:
    split = {**LONG, "max_steps": 60, "deepspeed": {"zero_stage": stage}, "gradient_accumulation_steps": 2}
    name = f"split-{stage}"
    started = start(tmp_path / name, 2, training=split)
    wait_until_in(started, Phase.TRAIN)
    started.ranks[1].send_signal(signal.SIGUSR1)
    assert started.ended() == [75, 75], (started.said(0), started.said(1))
    again = start(tmp_path / name, 1, attempt=2, training=split, resources={"gpus": 1})
    assert again.ended() == [0], again.said(0)
    losses = [s for s in (*started.metrics(), *again.metrics(2)) if s.name == "loss" and s.phase is Phase.TRAIN]
    assert [s.step for s in losses if s.rank == 0] == list(range(1, 61))
    values = {s.name: s.value for s in (*started.metrics(), *again.metrics(2))}
    assert (values["trainable_parameters"], values["total_parameters"]) == (24_576, 152_010)
    assert (again.home.attempt_folder(name, 2) / "adapter" / "adapter_model.safetensors").is_file()
    scores = [s for s in again.metrics(2) if s.name == "score/accuracy" and s.phase is Phase.EVALUATE]
    assert len(scores) == 1
