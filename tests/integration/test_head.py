"""The whole head is killed and comes back on Ray's RocksDB storage: what ran goes on, nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.local import LocalNode, local_node
from orchestrator.keeper import Kept
from orchestrator.store import Store
from tests.aftermath import Aftermath, targets_of
from tests.clusters import processes_with, quick_manifest, wait_until, wattledger

pytestmark = pytest.mark.cluster
WORKER_PORTS = range(10002, 20000)
"""Ray gives these to workers."""


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in WORKER_PORTS:
            return port


class Head:
    """A head of a cluster of its own, that may be killed and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._starts = folder, 0
        self._ports = {name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
        self.address = ""
        self.dashboard_url = f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def start(self) -> None:
        # What is on this machine tells Ray that the cluster still runs: the other node, and this note of its own.
        (self._folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        self._starts += 1
        log = self._folder / f"head-{self._starts}.log"
        others = ("dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port")
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--{name}={port}" for name, port in self._ports.items()),
            *(f"--{name}={free_port()}" for name in others),
            *(f"--temp-dir={self._folder / 'ray'}", "--num-cpus=0", "--num-gpus=0", "--object-store-memory=100000000"),
        ]
        storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._folder / "gcs")}
        before = psutil.Process().children()
        self._kept = Kept(command, log, environment={**os.environ, **storage})
        (self._keeper,) = [process for process in psutil.Process().children() if process not in before]
        wait_until(
            lambda: "Ray runtime started." in log.read_text() or self._kept.ended, timeout_s=120, what="the head"
        )
        found = re.search(r"--address='([^']+)'", log.read_text())
        assert found is not None, log.read_text()
        self.address = found[1]

    def kill(self) -> None:
        """All of it at once: keeper, storage, raylet, dashboard, and what its workers had started."""
        for process in [self._keeper, *self._keeper.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._kept.end()

    def end(self) -> None:
        self._kept.end()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    # A short path: Ray puts sockets below it.
    with tempfile.TemporaryDirectory(prefix="wl-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        made = Head(Path(folder))
        with contextlib.ExitStack() as stack:
            stack.callback(made.end)
            made.start()
            yield made


def test_jobs_go_on_through_the_kill_of_the_head_and_the_queue_is_served_again(head: Head, tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    with local_node(head.address, LocalNode(accelerator="H100", board_uuid=None), log=tmp_path / "node.log"):
        told = wattledger("up", "--address", head.address, "--home", str(home))
        assert told.returncode == 0, told.stderr
        aftermath = Aftermath(home=home, dashboard_url=head.dashboard_url, agents=lambda: targets_of(home))
        aftermath.check()
        manifest = quick_manifest(tmp_path, steps=60, more="seeds: [0, 1]")
        assert wattledger("submit", str(manifest), "--home", str(home)).returncode == 0
        wait_until(lambda: any(home.glob("artifacts/*/attempt-1/progress.json")), what="the first job to work")
        (attempt,) = [psutil.Process(pid) for pid in processes_with(f"workers.attempt {home}")]
        head.kill()
        assert not processes_with(f"orchestrator.serve --home {home} ")
        assert attempt.is_running()
        head.start()
        wait_until(lambda: len(finished(home)) == 2, timeout_s=240, what="both jobs to end")
        assert finished(home) == [("succeeded", 1), ("succeeded", 1)]
        aftermath.check()
        down = wattledger("down", "--home", str(home))
        assert down.returncode == 0, down.stderr
        assert not processes_with(str(home))


def finished(home: Path) -> list[tuple[str, int]]:
    """State and attempts of the jobs that have ended."""
    with contextlib.closing(Store(home / "state.db")) as store:
        return [(job.state.value, len(job.attempts)) for job in store.jobs() if job.state.is_final]
