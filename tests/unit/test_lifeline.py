"""A child its parent cannot do without is started again when it ends by itself, and never after it was let go."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.clusters import wait_until
from workers.lifeline import Child, KeptChild

LIVES = "import os, sys; print(os.getpid(), flush=True); os.read(int(sys.argv[1]), 1)"
CANNOT_START = "import sys; sys.exit(3)"


class Starts:
    """Starts children and counts them; ``code`` is what the next one runs."""

    def __init__(self, code: str = LIVES) -> None:
        self.code, self.count = code, 0
        self.said: list[bytes] = []

    def __call__(self) -> Child:
        self.count += 1
        read_fd, write_fd = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", self.code, str(read_fd)], pass_fds=(read_fd,), stdout=subprocess.PIPE
        )
        os.close(read_fd)
        return Child(process=process, parent_fd=write_fd)


def test_a_child_that_cannot_start_is_not_tried_again() -> None:
    starts = Starts(CANNOT_START)
    kept = KeptChild(starts, starts.said.append, pause_s=0)
    assert starts.said == [b""]
    assert kept.release(timeout_s=10) == 3
    assert starts.count == 1


def test_a_killed_child_is_started_again_and_again_even_when_it_does_not_start_at_once() -> None:
    starts = Starts()
    kept = KeptChild(starts, starts.said.append, pause_s=0.01)
    starts.code = CANNOT_START
    kept.process.kill()
    wait_until(lambda: len(starts.said) == 3, what="two starts that fail")
    assert starts.said[1:] == [b"", b""]
    starts.code = LIVES
    wait_until(lambda: bool(starts.said[-1]), what="a start that works")
    assert int(starts.said[-1]) == kept.process.pid != int(starts.said[0])
    assert kept.release(timeout_s=10) == 0


def test_a_child_that_was_let_go_is_not_started_again() -> None:
    starts = Starts()
    kept = KeptChild(starts, starts.said.append, pause_s=0.01)
    assert not kept.is_released
    assert kept.release(timeout_s=10) == 0
    assert kept.is_released
    assert starts.count == 1


def test_a_child_that_waits_to_be_started_again_can_be_let_go() -> None:
    starts = Starts()
    kept = KeptChild(starts, starts.said.append, pause_s=3600)
    kept.process.kill()
    kept.process.wait()
    assert kept.release(timeout_s=10) == -9
    assert starts.count == 1
