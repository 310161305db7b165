"""What an agent does about a driver that hangs: nobody waits for it for ever, and at last another agent tries.

A call into a driver cannot be taken back. Whoever else needs the node is told so after ``LOCK_S``; an agent whose
sampler gets no further for ``HANG_S`` ends, and the one that is started in its place goes on from the journal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from workers.errors import MeterError

LOCK_S = 2.0
"""A look at all boards of a node takes milliseconds."""
HANG_S = 20.0


class BoundedLock:
    """A reentrant lock that is not waited for for ever; a context manager.

    Raises:
        MeterError: on entering, when it is not free within ``timeout_s``: whoever holds it waits for a driver.
    """

    def __init__(self, timeout_s: float = LOCK_S) -> None:
        self._lock, self._timeout_s = threading.RLock(), timeout_s

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._timeout_s):
            raise MeterError(
                f"a driver has not answered for {self._timeout_s:g} s. Check that `nvidia-smi` works on this node."
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class Watchdog:
    """Ends this process when ``alive`` was not called for ``hang_s``: a call that hangs has no other way out.

    Args:
        hang_s: how long is too long.
        end: ends the process.
        story: what is said then; ``{}`` stands for ``hang_s``.
    """

    def __init__(
        self,
        hang_s: float,
        end: Callable[[int], object] = os._exit,
        *,
        story: str = "a driver has not answered for {} s: this agent ends.",
    ) -> None:
        self._hang_s, self._end, self._story = hang_s, end, story
        self._alive_s = time.monotonic()
        self._stop = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def alive(self) -> None:
        """The work goes on."""
        self._alive_s = time.monotonic()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(self._hang_s / 4):
            if time.monotonic() - self._alive_s > self._hang_s:
                sys.stderr.write(f"{self._story.format(f'{self._hang_s:g}')}\n")
                self._end(MeterError.exit_code)
                return
