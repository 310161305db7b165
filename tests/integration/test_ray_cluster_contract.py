"""Ray as the cluster keeps the port's promises: the same checks as the fake's, by a driver of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.local import LocalCluster
from tests.cluster_contract import NAMES, NEXT_DRIVER
from tests.clusters import ROOT, processes_with, ray_cluster, wait_until

__all__ = ["ray_cluster"]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def told(ray_cluster: LocalCluster, ledger: Path) -> dict[str, str | None]:
    """What each check found wrong; ``None`` for nothing."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.cluster_contract", ray_cluster.address, str(ledger)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [*NAMES, NEXT_DRIVER])
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
