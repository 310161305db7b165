"""How an attempt gives up its place when it is asked to (``SIGUSR1``): between two steps, where a checkpoint is whole.

Outside of training there is nothing to keep, and it leaves at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import FrameType


class Left(BaseException):
    """The attempt leaves its place; not an ``Exception``, so that no handler of errors takes it."""


class Leaving:
    """Whether the attempt was asked to leave. ``ask`` is a signal handler.

    Attributes:
        is_asked: whether it was.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._waits = False

    def ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Leave: at once, or where ``between_steps`` looks. Asking again changes nothing.

        Raises:
            Left: nobody looks between steps.
        """
        if self.is_asked:
            return
        self.is_asked = True
        if not self._waits:
            raise Left

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """Inside, asking only sets ``is_asked``: whoever works there looks at it after each step, and leaves then.

        Raises:
            Left: it was asked after the last look.
        """
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.is_asked:
            raise Left
