"""The control plane on a real Ray cluster: up, down, submissions, cancelling, and whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cluster.local import LocalCluster, LocalNode, local_node
from orchestrator.lifecycle import JobRecord
from orchestrator.store import Store
from tests.clusters import ROOT, processes_with, quick_manifest, ray_cluster, start, wait_until, wattledger

__all__ = ["ray_cluster"]
pytestmark = pytest.mark.cluster

LEFT = """
import json, sys
import ray
from ray.util import list_named_actors, placement_group_table
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
groups = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
print(json.dumps([actor["name"] for actor in list_named_actors(all_namespaces=True)] + groups))
"""


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

    def submit(self, manifest: Path, *arguments: str) -> list[str]:
        """Ids of the jobs."""
        return [
            job_id
            for submitted in json.loads(self.call("submit", str(manifest), "--json", *arguments).stdout)
            for job_id in submitted["job_ids"]
        ]

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

    def serving(self) -> list[int]:
        return processes_with(f"orchestrator.serve --home {self.home} ")


@pytest.fixture(scope="module")
def plane(ray_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    made = Plane(ray_cluster, tmp_path_factory.mktemp("ledger"))
    made.up()
    yield made
    made.call("down", "--cancel")


def evaluation(folder: Path, name: str = "quick", **more: object) -> Path:
    """The smallest job there is: a model is scored on one sample."""
    path = folder / f"{name}.yaml"
    wanted = {"gpus": 1, "accelerators": ["H100"], "cpus": 1}
    manifest = {"version": 1, "name": name, "kind": "evaluate", "task": "digits", "model": "tiny/vit"}
    path.write_text(json.dumps({**manifest, "evaluation": {"max_samples": 1}, "resources": wanted, **more}))
    return path


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
    (job_id,) = plane.submit(manifest, "--submission-id", "outlives")
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


def test_a_node_that_joins_gets_an_agent(plane: Plane, tmp_path: Path) -> None:
    with local_node(plane.cluster.address, LocalNode(accelerator="T4", board_uuid=None), log=tmp_path / "late.log"):
        wait_until(lambda: '"accelerator": "T4"' in plane.call("targets", "--json").stdout, what="its agent")


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
    left = subprocess.run(
        [sys.executable, "-c", LEFT, plane.cluster.address], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(left.stdout.splitlines()[-1]) == []
    assert "no controller" in plane.call("down").stdout
    plane.up()
    plane.wait_for(waiting, "succeeded")
