"""A process that must not outlive its parent holds a lifeline: the read end of a pipe whose other end the parent has.

However the parent ends, ``kill -9`` included, the kernel closes its end and the child reads end-of-file. This needs no
polling and no signal, works from any thread, and cannot hit a process that took over a number.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FLAG = "--lifeline-fd"


@dataclass(frozen=True, kw_only=True)
class Child:
    """A started child and the parent's end of its lifeline; ``release`` lets it go."""

    process: subprocess.Popen[bytes]
    parent_fd: int

    def release(self, *, timeout_s: float) -> int | None:
        """Let go of the lifeline and wait; after ``timeout_s`` kill. Gives the exit code."""
        os.close(self.parent_fd)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Child:
    """Start ``python -m module`` with a lifeline to this process, in a session of its own.

    A session of its own, so that Ctrl-C at a terminal reaches the parent alone, which then ends the child in order.
    """
    read_fd, write_fd = os.pipe()
    try:
        process = subprocess.Popen(  # our own modules, our own arguments
            [sys.executable, "-m", module, *arguments, FLAG, str(read_fd)],
            pass_fds=(read_fd,),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=_with_our_code(os.environ if environment is None else environment),
            start_new_session=True,
        )
    except OSError:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    return Child(process=process, parent_fd=write_fd)


def _with_our_code(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child finds this very code, wherever Ray or a checkout has put it."""
    here = str(Path(__file__).resolve().parent.parent)
    found = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{here}{os.pathsep}{found}" if found else here}


def watch(fd: int, on_gone: Callable[[], None]) -> None:
    """Call ``on_gone`` in a thread of its own once the parent has let go."""

    def wait() -> None:
        while os.read(fd, 1):
            pass
        on_gone()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
