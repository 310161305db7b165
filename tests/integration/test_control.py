"""The control plane on a real Ray cluster: up, down, submissions, cancelling, and whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import client
from orchestrator.cluster.local import LocalCluster, LocalNode, local_node
from orchestrator.lifecycle import AttemptState, JobRecord
from orchestrator.store import Store
from tests.aftermath import Aftermath, targets_of
from tests.clusters import ROOT, processes_with, quick_manifest, ray_cluster, start, wait_until, wattledger
from workers.contract import Phase
from workers.home import Home
from workers.metric_log import RESUMED_FROM_ATTEMPT, read_metrics
from workers.progress import read_progress

__all__ = ["ray_cluster"]
pytestmark = pytest.mark.cluster

CHECKPOINT_STEPS = 7


@dataclass(frozen=True)
class Plane:
    """A ledger with a controller on the cluster."""

    cluster: LocalCluster
    home: Path

    def call(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A verb on this ledger that is to go well."""
        told = wattledger(verb, *arguments, "--home", str(self.home))
        assert told.returncode == 0, told.stdout + told.stderr
        return told

    def up(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self.call("up", "--address", self.cluster.address, "--json", *arguments).stdout))

    def submit(self, manifest: Path, *, submission_id: str | None = None) -> tuple[str, ...]:
        """Ids of the jobs. As the verb does it, but for the second that a process of its own takes."""
        (submitted,) = client.submit([manifest], home=Home(self.home), submission_id=submission_id)
        return submitted.job_ids

    def job(self, job_id: str) -> JobRecord:
        with contextlib.closing(Store(self.home / "state.db")) as store:
            return store.job(job_id)

    def wait_for(self, job_id: str, state: str) -> None:
        """Until it has ended, which must be in that state."""
        wait_until(lambda: self.job(job_id).state.is_final, timeout_s=180, what=f"{job_id} to end")
        job = self.job(job_id)
        assert job.state.value == state, job.reason

    def wait_until_it_works(self, job_id: str) -> int:
        """The process of the job's first attempt, once it makes progress."""
        folder = self.home / "artifacts" / job_id / "attempt-1"
        wait_until((folder / "progress.json").exists, what=f"{job_id} to make progress")
        return int(json.loads((folder / "environment.json").read_text())["pid"])

    def wait_until_it_trains(self, job_id: str) -> None:
        """Until the job's first attempt has done a step of its training."""

        def is_there() -> bool:
            progress = read_progress(Home(self.home), job_id, 1)
            return progress is not None and progress.phase is Phase.TRAIN and progress.done > 0

        wait_until(is_there, what=f"{job_id} to train")

    def trained(self, job_id: str, attempt: int) -> list[int]:
        """The steps of its training that an attempt logged."""
        samples = read_metrics(Home(self.home), job_id, attempt)
        return [s.step for s in samples if s.name == "loss" and s.phase is Phase.TRAIN and s.step is not None]

    def resumed_from(self, job_id: str, attempt: int) -> list[float]:
        return [s.value for s in read_metrics(Home(self.home), job_id, attempt) if s.name == RESUMED_FROM_ATTEMPT]

    def serving(self) -> list[int]:
        return processes_with(f"orchestrator.serve --home {self.home} ")

    @functools.cached_property
    def aftermath(self) -> Aftermath:
        return Aftermath(home=self.home, dashboard_url=self.cluster.dashboard_url, agents=lambda: targets_of(self.home))


@pytest.fixture(scope="module")
def plane(ray_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    made = Plane(ray_cluster, tmp_path_factory.mktemp("ledger"))
    made.up()
    made.aftermath.check()
    yield made
    made.call("down", "--cancel")


def evaluation(folder: Path, name: str = "quick", **more: object) -> Path:
    """The smallest job there is: a model is scored on one sample."""
    path = folder / f"{name}.yaml"
    wanted = {"gpus": 1, "accelerators": ["H100"], "cpus": 1}
    manifest = {"version": 1, "name": name, "kind": "evaluate", "task": "digits", "model": "tiny/vit"}
    path.write_text(json.dumps({**manifest, "evaluation": {"max_samples": 1}, "resources": wanted, **more}))
    return path


def fine_tune(folder: Path, name: str, *, steps: int, accelerators: Sequence[str] = ("H100",)) -> Path:
    """A job that saves a checkpoint every few steps."""
    return evaluation(
        folder,
        name,
        kind="finetune",
        adapter={"method": "lora"},
        training={"max_steps": steps, "epochs": steps, "batch_size": 64, "checkpoint_steps": CHECKPOINT_STEPS},
        resources={"gpus": 1, "accelerators": list(accelerators), "cpus": 1},
    )


def test_a_submission_to_a_ledger_without_a_controller_exits_3_and_names_up(tmp_path: Path) -> None:
    told = wattledger("submit", str(evaluation(tmp_path)), "--home", str(tmp_path / "ledger"))
    assert (told.returncode, told.stdout) == (3, "")
    assert "wattledger up" in told.stderr


def test_a_ledger_has_one_cluster_and_a_controller_that_cannot_come_up_says_why(plane: Plane, tmp_path: Path) -> None:
    other = wattledger("up", "--address", "127.0.0.1:1", "--home", str(plane.home))
    assert other.returncode == 2
    assert f"is served by the cluster at {plane.cluster.address}" in other.stderr
    port = plane.up()["targets_url"].rpartition(":")[2].rstrip("/")
    taken = wattledger(
        *("up", "--address", plane.cluster.address, "--targets-port", port, "--home", str(tmp_path / "other"))
    )
    assert taken.returncode == 2
    assert "the controller did not start:" in taken.stderr
    assert port in taken.stderr
    assert "Traceback" not in taken.stderr
    assert not processes_with(str(tmp_path / "other"))


def test_up_twice_tells_of_the_controller_that_runs_and_what_is_not_as_asked(plane: Plane) -> None:
    first = plane.up()
    assert (first["nodes"], first["gpus"], first["simulated"]) == (3, {"H100": 1, "L4": 1}, True)
    again = plane.call("up", "--targets-port", "1", "--agent-listen", "0.0.0.0", "--json")
    assert json.loads(again.stdout) == first
    assert f"was started before and tells the agents at {first['targets_url']}" in again.stderr
    assert "was started before and is reached from its own host alone" in again.stderr
    assert len(plane.serving()) == 1


def test_a_job_outlives_controller_its_worker_and_client_and_runs_once(plane: Plane, tmp_path: Path) -> None:
    manifest = quick_manifest(tmp_path, steps=200)
    follower = start("run", str(manifest), "--home", str(plane.home), "--submission-id", "outlives")
    (job_id,) = plane.submit(manifest, submission_id="outlives")
    attempt = plane.wait_until_it_works(job_id)
    follower.kill()
    follower.communicate()
    (serving,) = plane.serving()
    os.kill(serving, signal.SIGKILL)
    wait_until(lambda: plane.serving() not in ([], [serving]), what="another controller")
    (second,) = plane.serving()
    worker = psutil.Process(second).parent()
    assert worker is not None
    worker.kill()
    wait_until(lambda: plane.serving() not in ([], [second]), what="a third controller")
    assert psutil.pid_exists(attempt), "the attempt goes on"
    plane.wait_for(job_id, "succeeded")
    with contextlib.closing(Store(plane.home / "state.db")) as store:
        assert [attempt.number for attempt in store.job(job_id).attempts] == [1]
        assert sum(" starts on " in what for _, what in store.events(job_id)) == 1
    assert [path.name for path in (plane.home / "artifacts" / job_id).glob("attempt-*")] == ["attempt-1"]
    plane.aftermath.check()


def test_a_job_that_makes_room_for_another_goes_on_from_its_checkpoint_once_that_is_done(
    plane: Plane, tmp_path: Path
) -> None:
    (low,) = plane.submit(fine_tune(tmp_path, "low", steps=100))
    plane.wait_until_it_trains(low)
    (high,) = plane.submit(evaluation(tmp_path, "high", schedule={"priority": 1}))
    plane.wait_for(high, "succeeded")
    plane.wait_for(low, "succeeded")
    first, second = plane.job(low).attempts
    (between,) = plane.job(high).attempts
    assert (first.state, second.state) == (AttemptState.PREEMPTED, AttemptState.SUCCEEDED)
    assert first.ended_ns is not None
    assert between.ended_ns is not None
    assert first.ended_ns <= between.started_ns <= between.ended_ns <= second.started_ns
    assert plane.resumed_from(low, 2) == [1]
    assert plane.trained(low, 1) != []
    assert plane.trained(low, 1) + plane.trained(low, 2) == list(range(1, 101)), "no step is lost or done twice"
    (row,) = json.loads(plane.call("report", "low", "--json").stdout)
    assert (row["attempts"], row["energy_wasted_kwh"]) == (2, 0)
    plane.aftermath.check()


def test_a_node_that_joins_gets_an_agent_and_when_it_loses_power_its_job_goes_on_elsewhere_from_the_last_checkpoint(
    plane: Plane, tmp_path: Path
) -> None:
    def family() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    before, late = family(), LocalNode(accelerator="RTX-4090", board_uuid=None)
    with local_node(plane.cluster.address, late, log=tmp_path / "late.log"):
        wait_until(lambda: len(targets_of(plane.home)) == 3, what="its agent")
        (job_id,) = plane.submit(fine_tune(tmp_path, "moves", steps=80, accelerators=["RTX-4090", "H100"]))
        checkpoints = plane.home / "artifacts" / job_id / "checkpoints"
        wait_until(lambda: any(checkpoints.glob("step-*")), what="a checkpoint")
        node = family() - before
        attempt = plane.wait_until_it_works(job_id)
        assert attempt in {process.pid for process in node}
        assert "raylet" in {process.name() for process in node}
        for process in node:
            process.kill()
        plane.wait_for(job_id, "succeeded")
        assert not psutil.pid_exists(attempt)
    first, second = plane.job(job_id).attempts
    assert (first.state, first.accelerator) == (AttemptState.LOST, "RTX-4090")
    assert (second.state, second.accelerator) == (AttemptState.SUCCEEDED, "H100")
    assert plane.resumed_from(job_id, 2) == [1]
    again = plane.trained(job_id, 2)
    assert again == list(range(again[0], 81))
    assert again[0] > CHECKPOINT_STEPS
    assert (again[0] - 1) % CHECKPOINT_STEPS == 0
    plane.aftermath.check()


@pytest.mark.heavy
def test_two_clients_that_submit_at_once_have_all_of_their_jobs_run(plane: Plane, tmp_path: Path) -> None:
    manifests = [evaluation(tmp_path, name) for name in ("one", "two")]
    clients = [start("submit", str(manifest), "--json", "--home", str(plane.home)) for manifest in manifests]
    told = [json.loads(client.communicate(timeout=60)[0]) for client in clients]
    job_ids = [job_id for submissions in told for each in submissions for job_id in each["job_ids"]]
    assert len(set(job_ids)) == 2
    for job_id in job_ids:
        plane.wait_for(job_id, "succeeded")


def test_to_cancel_stops_the_attempt_and_what_needs_it_never_starts(plane: Plane, tmp_path: Path) -> None:
    (job_id,) = plane.submit(quick_manifest(tmp_path, steps=4000))
    (child,) = plane.submit(evaluation(tmp_path, "child", needs=[job_id]))
    attempt = plane.wait_until_it_works(job_id)
    told = plane.call("cancel", job_id)
    assert f"{job_id}: cancelled" in told.stdout
    assert not psutil.pid_exists(attempt)
    plane.wait_for(child, "cancelled")
    assert plane.call("cancel", job_id, child).stdout.count(": cancelled") == 2
    plane.aftermath.check()


@pytest.mark.heavy
def test_ray_job_submit_of_a_submission_leaves_the_jobs_to_the_controller(plane: Plane, tmp_path: Path) -> None:
    evaluation(tmp_path, "by-ray")
    entry = (sys.executable, "-m", "orchestrator", "submit", str(tmp_path / "by-ray.yaml"), "--home", str(plane.home))
    told = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--address", plane.cluster.dashboard_url, "--working-dir", str(ROOT), "--", *entry),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    with contextlib.closing(Store(plane.home / "state.db")) as store:
        (job_id,) = [job.job_id for job in store.jobs() if job.spec.name == "by-ray"]
    plane.wait_for(job_id, "succeeded")


def test_down_refuses_while_jobs_run_and_then_leaves_nothing_but_the_queue(plane: Plane, tmp_path: Path) -> None:
    (running,) = plane.submit(quick_manifest(tmp_path, steps=4000))
    (waiting,) = plane.submit(quick_manifest(tmp_path, steps=40))
    plane.wait_until_it_works(running)
    refused = wattledger("down", "--home", str(plane.home))
    assert refused.returncode == 2
    assert f"1 job runs: {running}" in refused.stderr
    assert plane.serving()
    assert "have ended" in plane.call("down", "--cancel").stdout
    assert (plane.job(running).state.value, plane.job(waiting).state.value) == ("cancelled", "queued")
    assert not processes_with(str(plane.home))
    assert plane.aftermath.actors() == {}
    assert plane.aftermath.placement_groups() == []
    assert "no controller" in plane.call("down").stdout
    plane.up()
    plane.wait_for(waiting, "succeeded")
