"""Journals become Parquet files in a process of their own: ``python -m workers.telemetry.settle JOURNAL...``.

Writing Parquet takes pyarrow, and pyarrow more memory than all the rest of an agent. So an agent that lives for weeks
never loads it: every roll starts this, which takes a third of a second of one core at the lowest priority.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from workers import lifeline
from workers.telemetry.energy_log import settle

END_TIMEOUT_S = 10.0


class ChildSettler:
    """Settles journals in a child, one child at a time. Behaves as ``Settler`` says."""

    def __init__(self) -> None:
        self._child: lifeline.Child | None = None
        self._journals: tuple[Path, ...] = ()

    @property
    def pid(self) -> int | None:
        """The child's; ``None`` while there is none."""
        return self._child.process.pid if self._child is not None else None

    def start(self, journals: Sequence[Path]) -> None:
        """Begin, unless one is at it."""
        if self._child is None:
            self._journals = tuple(journals)
            self._child = lifeline.spawn("workers.telemetry.settle", [*map(str, journals)], stderr=subprocess.PIPE)

    def done(self, *, wait: bool = False) -> tuple[Path, ...]:
        """What is settled since the last call."""
        if self._child is None or (self._child.process.poll() is None and not wait):
            return ()
        child, self._child = self._child, None
        assert child.process.stderr is not None
        with child.process.stderr as said:
            # To its end, which is the child's: only then may it be let go.
            sentences = said.read().decode(errors="replace").splitlines()
        code = child.release(timeout_s=END_TIMEOUT_S)
        if code:
            raise OSError(sentences[-1] if sentences else f"its process ended with code {code}")
        return self._journals


def main(arguments: Sequence[str] | None = None) -> int:
    """Settle the journals that are named; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.telemetry.settle", description="Journals to Parquet.")
    parser.add_argument("journals", type=Path, nargs="+")
    parser.add_argument(lifeline.FLAG, type=int, help=argparse.SUPPRESS)
    found = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    os.nice(19)
    if found.lifeline_fd is not None:
        # The agent that follows one that was killed settles the same journals, so nobody else may be at it then.
        lifeline.watch(found.lifeline_fd, lambda: os._exit(1))
    try:
        for journal in found.journals:
            settle(journal)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
