"""Jobs on a real Ray cluster of three nodes: run, kill, cap, cancel, and what the ledger says afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.accounting.row import FIELDS
from orchestrator.cluster.local import LocalCluster
from orchestrator.lifecycle import JobState
from orchestrator.store import Store
from tests.aftermath import Aftermath, get, targets_of
from tests.clusters import ROOT, processes_with, quick_manifest, ray_cluster, start, wait_until, wattledger
from workers.home import Home
from workers.telemetry.energy_read import read_energy
from workers.units import MJ_PER_KWH

__all__ = ["ray_cluster"]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def ledger(ray_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ledger whose first run raises its controller; nothing of it is left at the end."""
    home = tmp_path_factory.mktemp("ledger")
    yield home
    told = wattledger("down", "--cancel", "--home", str(home))
    assert told.returncode == 0, told.stderr
    assert not processes_with(str(home))


@pytest.fixture(scope="module")
def aftermath(ray_cluster: LocalCluster, ledger: Path) -> Aftermath:
    return Aftermath(home=ledger, dashboard_url=ray_cluster.dashboard_url, agents=lambda: targets_of(ledger))


def row_of(home: Path, name: str = "quick") -> dict[str, object]:
    """The report of the one job of a manifest's latest run."""
    told = wattledger("report", name, "--json", "--home", str(home))
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)
    return row


def wait_until_it_works(home: Path, name: str) -> int:
    """The process of a manifest's first attempt, once it makes progress."""
    wait_until(
        lambda: any(home.glob(f"artifacts/{name}-*/attempt-1/progress.json")), what="the attempt to make progress"
    )
    (environment,) = home.glob(f"artifacts/{name}-*/attempt-1/environment.json")
    return int(json.loads(environment.read_text())["pid"])


def test_an_accelerator_the_cluster_lacks_is_refused_before_anything_is_submitted(
    ray_cluster: LocalCluster, ledger: Path, aftermath: Aftermath, tmp_path: Path
) -> None:
    manifest = quick_manifest(tmp_path, accelerators="[V100]", name="refused")
    told = wattledger("run", str(manifest), "--address", ray_cluster.address, "--home", str(ledger))
    assert told.returncode == 2
    assert "V100" in told.stderr
    assert "H100" in told.stderr
    assert "L4" in told.stderr
    assert states(ledger, "refused") == []
    aftermath.check()


def test_a_killed_attempt_fails_its_job_and_its_energy_stays_booked(
    ray_cluster: LocalCluster, ledger: Path, aftermath: Aftermath, tmp_path: Path
) -> None:
    manifest = quick_manifest(tmp_path, steps=400, name="killed")
    running = start("run", str(manifest), "--address", ray_cluster.address, "--home", str(ledger))
    os.kill(wait_until_it_works(ledger, "killed"), signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    assert "signal 9" in out + err
    row = row_of(ledger, "killed")
    assert row["state"] == "failed"
    assert row["energy_kwh"] > 0
    assert row["energy_wasted_kwh"] == row["energy_kwh"]
    assert row["energy_method"] == "simulated"
    assert row["score"] is None
    aftermath.check()


def test_a_failed_job_is_tried_again_when_its_manifest_says_so(
    ledger: Path, aftermath: Aftermath, tmp_path: Path
) -> None:
    manifest = quick_manifest(tmp_path, steps=20, more="retry: {failures: 1, backoff_s: 0}", name="again")
    running = start("run", str(manifest), "--home", str(ledger))
    os.kill(wait_until_it_works(ledger, "again"), signal.SIGKILL)
    _, err = running.communicate(timeout=90)
    assert running.returncode == 0, err
    row = row_of(ledger, "again")
    assert (row["state"], row["attempts"]) == ("succeeded", 2)
    assert 0 < row["energy_wasted_kwh"] < row["energy_kwh"]
    aftermath.check()


def test_a_power_cap_holds_for_the_job_and_the_old_limit_is_back_afterwards(ledger: Path, tmp_path: Path) -> None:
    manifest = quick_manifest(tmp_path, more="power: {cap_percent: 50}", name="capped")
    told = wattledger("run", str(manifest), "--home", str(ledger))
    assert told.returncode == 0, told.stderr
    row = row_of(ledger, "capped")
    assert row["power_cap_w"] == 350.0
    assert row["power_mean_w"] <= 350.0
    held = [entry for entry in read_energy(Home(ledger)) if entry.job_id == row["job_id"]]
    assert sum(entry.energy_mj for entry in held) / MJ_PER_KWH == row["energy_kwh"]
    shown = "".join(get(url) for url in targets_of(ledger).values())
    limits = re.findall(r'^wattledger_device_power_limit_watts\{.*model="H100".*\} (\S+)$', shown, re.MULTILINE)
    assert limits == ["700.0"]


def test_ray_job_submit_runs_the_manifest_and_passes_its_exit_code_on(
    ray_cluster: LocalCluster, ledger: Path, tmp_path: Path
) -> None:
    told = submit(ray_cluster, quick_manifest(tmp_path, name="by-ray"), "--home", str(ledger))
    assert told.returncode == 0, told.stdout + told.stderr
    assert "CEGI" in told.stdout
    assert "simulated" in told.stdout
    row = row_of(ledger, "by-ray")
    assert tuple(row) == FIELDS
    assert row["state"] == "succeeded"


def test_ray_job_stop_cancels_the_jobs_it_started(
    ray_cluster: LocalCluster, ledger: Path, aftermath: Aftermath, tmp_path: Path
) -> None:
    manifest = quick_manifest(tmp_path, steps=440, name="to-stop")
    options = ("--no-wait", "--submission-id", "to-stop")
    told = submit(ray_cluster, manifest, "--home", str(ledger), options=options)
    assert told.returncode == 0, told.stdout + told.stderr
    attempt = wait_until_it_works(ledger, "to-stop")
    stopped = ray_job("stop", "--address", ray_cluster.dashboard_url, "to-stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    wait_until(lambda: states(ledger, "to-stop") == [JobState.CANCELLED], what="the job to be cancelled")
    assert not psutil.pid_exists(attempt)
    entries = [entry for entry in read_energy(Home(ledger)) if (entry.job_id or "").startswith("to-stop-")]
    assert sum(entry.energy_mj for entry in entries) > 0
    aftermath.check()


def states(home: Path, name: str) -> list[JobState]:
    with contextlib.closing(Store(home / "state.db")) as store:
        return [job.state for job in store.jobs() if job.spec.name == name]


def submit(
    cluster: LocalCluster, manifest: Path, *arguments: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """``ray job submit`` of a manifest, with the code of this checkout as the working folder."""
    entry = (sys.executable, "-m", "orchestrator", "run", str(manifest), *arguments)
    return ray_job("submit", "--address", cluster.dashboard_url, "--working-dir", str(ROOT), *options, "--", *entry)


def ray_job(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", verb, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
