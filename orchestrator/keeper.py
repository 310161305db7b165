"""Runs someone else's server for exactly as long as the process that asked for it.

A foreign program cannot hold a lifeline, so a small process, ``python -m orchestrator.keeper``, holds it in its place:
it gives the server's exit code, or ends the server and everything the server started once the parent has let go. That
covers ``kill -9`` of the parent, needs no signal tied to the parent's threads, and hits nobody else's processes.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from workers import lifeline

GRACE_S = 5.0
"""Seconds between asking the server to end and killing it. An idle Prometheus ends within 0.1 s, an idle Ray node
within a second."""


class Kept:
    """A server this process keeps; ``end`` it when it is no longer needed."""

    def __init__(self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        """Start ``command``; its output replaces ``log``, and ``environment`` this process's own."""
        self._server: psutil.Process | None = None
        with log.open("wb") as output:
            self._child = lifeline.spawn(
                "orchestrator.keeper", command, environment=environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def ended(self) -> bool:
        """Whether the server has ended by itself."""
        return self._child.process.poll() is not None

    def listening_port(self) -> int | None:
        """The TCP port the server listens on; ``None`` as long as there is none.

        Asked of the kernel, so it is surely this server's, and a server told to take any port needs no guess of ours.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            for server in psutil.Process(self._child.process.pid).children():
                for connection in server.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        self._server = server
                        return int(connection.laddr.port)
        return None

    def end(self) -> None:
        """Let the server go, and make sure that it went: its keeper may have been killed before it."""
        self._child.release(timeout_s=2 * GRACE_S)
        if self._server is not None:
            # psutil compares start times, so a process that took over the number is not hit.
            with contextlib.suppress(psutil.NoSuchProcess):
                self._server.kill()


def main(arguments: Sequence[str]) -> int:
    """Run ``COMMAND... --lifeline-fd N`` and give the command's exit code; 127 when it cannot be started."""
    *command, flag, fd = arguments
    if flag != lifeline.FLAG:
        raise SystemExit(f"keeper: expected COMMAND... {lifeline.FLAG} N")
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    lifeline.watch(int(fd), lambda: _end(process))
    return process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end; after the grace, kill whatever is left of it and of what it started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
