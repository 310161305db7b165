"""A real Ray cluster for tests, and the command line as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.local import LocalCluster, LocalNode, local_cluster

ROOT = Path(__file__).resolve().parent.parent
QUICK = """\
version: 1
name: {name}
kind: finetune
task: digits
model: tiny/vit
adapter: {{method: lora}}
training: {{epochs: 20, max_steps: {steps}, batch_size: 64, learning_rate: 0.008}}
resources: {{gpus: 1, accelerators: {accelerators}, cpus: 1}}
{more}
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[LocalCluster]:
    """A head, an H100 and an L4, both simulated; ended after the module's tests."""
    nodes = [LocalNode(accelerator=name, board_uuid=None) for name in ("H100", "L4")]
    with local_cluster(nodes, say=lambda _: None) as cluster:
        yield cluster


def quick_manifest(
    folder: Path, *, steps: int = 40, accelerators: str = "[H100]", more: str = "", name: str = "quick"
) -> Path:
    """A manifest of one small job, or as ``more`` says."""
    path = folder / f"{name}.yaml"
    path.write_text(QUICK.format(name=name, steps=steps, accelerators=accelerators, more=more))
    return path


def start(*arguments: str) -> subprocess.Popen[str]:
    """``wattledger`` with these arguments, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )


def wattledger(*arguments: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    """``wattledger`` with these arguments, run to its end."""
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
        process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60, what: str) -> None:
    """Wait for a condition of another process; fail with ``what`` when it does not come."""
    deadline_s, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}")
        pause.wait(0.05)


def processes_with(text: str) -> list[int]:
    """Processes whose command line holds ``text``, this one left out."""
    return [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if process.info["pid"] != os.getpid() and text in " ".join(process.info["cmdline"] or ())
    ]
