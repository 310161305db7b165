"""A process that must not outlive its parent holds a lifeline: the read end of a pipe whose other end the parent has.

However the parent ends, ``kill -9`` included, the kernel closes its end and the child reads end-of-file. This needs no
polling and no signal, works from any thread, and cannot hit a process that took over a number. A child that its parent
cannot do without is *kept*: started again when it ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FLAG = "--lifeline-fd"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between two starts of a kept child: doubled each time, and from the beginning after it ran for the longest."""


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


class KeptChild:
    """A child that is started again when it ends by itself, until it is let go. It prints one line when it is ready.

    Args:
        start: starts it, with standard output a pipe.
        on_ready: given the line it printed, at every start; an empty one when it ended without.
        pause_s: before the first start after an end.
    """

    def __init__(
        self, start: Callable[[], Child], on_ready: Callable[[bytes], None], *, pause_s: float = FIRST_PAUSE_S
    ) -> None:
        self._start, self._on_ready, self._first_pause_s = start, on_ready, pause_s
        self._lock, self._let_go = threading.Lock(), threading.Event()
        self._child = start()
        self._is_ready = self._hear()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        if self._is_ready:
            self._keeper.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The present child, which may have ended."""
        return self._child.process

    @property
    def is_released(self) -> bool:
        """Whether it was let go."""
        return self._let_go.is_set()

    def release(self, *, timeout_s: float) -> int | None:
        """Let go of it for good, and wait; after ``timeout_s`` kill. Gives the exit code of the last one."""
        self._let_go.set()
        with self._lock:
            code = self._child.release(timeout_s=timeout_s)
        if self._is_ready:
            self._keeper.join()
        return code

    def _hear(self) -> bool:
        """Pass on what it says when it is ready; whether it is."""
        assert self._child.process.stdout is not None
        with self._child.process.stdout as said:
            line = said.readline()
        self._on_ready(line)
        return bool(line)

    def _keep(self) -> None:
        pause_s, began_s = self._first_pause_s, time.monotonic()
        while True:
            self._child.process.wait()
            if time.monotonic() - began_s >= LONGEST_PAUSE_S:
                pause_s = self._first_pause_s
            if self._let_go.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            with self._lock:
                if self._let_go.is_set():
                    return
                ended = self._child
                try:
                    self._child, began_s = self._start(), time.monotonic()
                except OSError:
                    continue  # The host cannot start a process just now.
                ended.release(timeout_s=0)
            self._hear()


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
