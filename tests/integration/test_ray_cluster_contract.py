"""Ray as the cluster keeps the port's promises: the same checks as the fake's, by a driver of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.local import LocalCluster
from tests.cluster_contract import NAMES, SUCCESSION_NAMES
from tests.clusters import ROOT, processes_with, quick_manifest, ray_cluster, start, wait_until, wattledger
from tests.ray_checks import RAY_NAMES

__all__ = ["ray_cluster"]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def told(ray_cluster: LocalCluster, ledger: Path) -> dict[str, str | None]:
    """What each check found wrong; ``None`` for nothing."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.ray_checks", ray_cluster.address, str(ledger), ray_cluster.dashboard_url],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [*NAMES, *SUCCESSION_NAMES, *RAY_NAMES])
def test_it_keeps_the_ports_promises(told: dict[str, str | None], name: str) -> None:
    assert told[name] is None, told[name]


def test_a_failed_attempt_says_what_its_user_must_mend(told: dict[str, str | None], ledger: Path) -> None:
    assert told
    reason = (ledger / "artifacts" / "bad" / "attempt-2" / "reason.txt").read_text()
    assert "unknown model 'tiny/none-such'" in reason
    assert "tiny/vit" in reason


def test_nothing_of_the_driver_is_left_on_the_nodes(told: dict[str, str | None], ledger: Path) -> None:
    assert told
    wait_until(lambda: not processes_with(str(ledger)), what="agents and attempts to leave")


def test_the_same_submission_again_runs_nothing_and_gives_the_first_ones_report(
    ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    arguments = (
        *("run", str(quick_manifest(tmp_path, steps=150)), "--address", ray_cluster.address),
        *("--home", str(tmp_path), "--submission-id", "nightly"),
    )
    first = start(*arguments)
    try:
        wait_until(lambda: any(tmp_path.glob("artifacts/*/attempt-1/progress.json")), what="the job to run")
        meanwhile = wattledger(*arguments)
        assert meanwhile.returncode == 0, meanwhile.stderr
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, err
    again = wattledger(*arguments)
    assert again.returncode == 0, again.stderr
    assert "was this very submission; it does not run again, and this is its report" in again.stderr
    assert again.stdout == meanwhile.stdout == out
    (row,) = json.loads(wattledger("report", "--json", "--home", str(tmp_path)).stdout)
    assert (row["state"], row["attempts"]) == ("succeeded", 1)
