"""A foreign server ends with whoever asked for it, and what it started ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from orchestrator.keeper import Kept
from tests.agents import has_ended
from tests.clusters import wait_until

SERVE_WITH_A_CHILD = """
import socket, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with socket.create_server(("127.0.0.1", 0)):
    print(child.pid, flush=True)
    time.sleep(600)
"""

KEEP_AND_WAIT = """
import sys
from pathlib import Path
from orchestrator.keeper import Kept
kept = Kept(sys.argv[2:], Path(sys.argv[1]))
print("kept", flush=True)
sys.stdin.read()
"""


def child_of(log: Path) -> int:
    """What the server printed: the process it started."""
    wait_until(lambda: log.read_text().endswith("\n"), timeout_s=20, what="the server to start")
    return int(log.read_text())


def test_a_command_that_does_not_exist_ends_at_once_and_says_so(tmp_path: Path) -> None:
    kept = Kept(["/nowhere/server"], tmp_path / "log")
    wait_until(lambda: kept.ended, timeout_s=20, what="the keeper to end")
    kept.end()
    assert "/nowhere/server cannot be started: [Errno 2]" in (tmp_path / "log").read_text()
    assert kept.listening_port() is None


def test_a_server_that_ends_by_itself_is_seen_to_have_ended(tmp_path: Path) -> None:
    kept = Kept([sys.executable, "-c", "print('done')"], tmp_path / "log")
    wait_until(lambda: kept.ended, timeout_s=20, what="the server to end")
    kept.end()
    assert (tmp_path / "log").read_text() == "done\n"


def test_ending_a_server_ends_what_it_started(tmp_path: Path) -> None:
    kept = Kept([sys.executable, "-c", SERVE_WITH_A_CHILD], tmp_path / "log")
    child = child_of(tmp_path / "log")
    wait_until(lambda: kept.listening_port() is not None, timeout_s=20, what="its port")
    assert not kept.ended
    kept.end()
    assert kept.ended
    wait_until(lambda: has_ended(child), timeout_s=10, what="the server's child to end")


def test_a_server_ends_when_whoever_asked_for_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    asking = subprocess.Popen(
        [sys.executable, "-c", KEEP_AND_WAIT, str(log), sys.executable, "-c", SERVE_WITH_A_CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert asking.stdin is not None
    assert asking.stdout is not None
    with asking.stdin, asking.stdout:
        assert asking.stdout.readline() == b"kept\n"
        child = child_of(log)
        server = psutil.Process(child).parent()
        assert server is not None
        asking.kill()
        asking.wait()
    wait_until(lambda: has_ended(server.pid) and has_ended(child), timeout_s=10, what="the orphaned server to end")


def test_a_server_sees_the_environment_it_was_given_and_no_lifeline_of_others(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    script = "import os; print(os.environ['GREETING'], sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[3:])"
    kept = Kept([sys.executable, "-c", script], tmp_path / "log", environment={**os.environ, "GREETING": "hello"})
    wait_until(lambda: kept.ended, timeout_s=20, what="the server to end")
    kept.end()
    os.close(read_fd)
    os.close(write_fd)
    # Standard streams, and the folder that was being listed: nothing that would keep a pipe of ours open.
    assert (tmp_path / "log").read_text() in {"hello []\n", "hello [3]\n"}
