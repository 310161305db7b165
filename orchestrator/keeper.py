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
import threading
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
    family: list[psutil.Process] = []
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    lifeline.watch(int(fd), lambda: _ask_to_end(process, family))
    exit_code = process.wait()
    for member in family:
        # Whatever the server started and left behind; psutil never hits a process that took over a number.
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    return exit_code


def _ask_to_end(process: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
    """Note what the server started, ask it to end, and kill it when it takes longer than the grace."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family.extend(psutil.Process(process.pid).children(recursive=True))
    process.terminate()
    timer = threading.Timer(GRACE_S, process.kill)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
