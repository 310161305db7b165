"""Starts a simulated driver and orders it about. A context manager; the ``nvml_library`` fixture builds the library."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pytest

from tests.driver.build import build_library

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once per session."""
    return build_library(tmp_path_factory.mktemp("nvml"))


class Driver:
    """A driver process with its boards; each board is the fields of a ``BoardSpec``.

    Attributes:
        environment: what a subprocess needs to find this driver, and no other, through ``pynvml``.
    """

    def __init__(
        self, library: Path, boards: Sequence[Mapping[str, Any]], *, clock: Literal["real", "manual"] = "real"
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nvml-")
        self.socket = Path(self._folder.name) / "driver.sock"
        self._wanted = json.dumps({"socket": str(self.socket), "boards": [dict(b) for b in boards], "clock": clock})
        others = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            "LD_LIBRARY_PATH": ":".join([str(library.parent), *others]),
            "FAKE_NVML_SOCKET": str(self.socket),
        }
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.driver.server", self._wanted],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.settimeout(20)
        self._control.connect(str(self.socket))
        self._lines = self._control.makefile("rb")

    def order(self, op: str, **arguments: Any) -> Any:
        """One order of ``server.Control``, and its reply."""
        self._control.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
        return json.loads(self._lines.readline())

    def kill(self) -> None:
        """The driver process ends at once, as if the module had been removed under everybody."""
        self.process.kill()
        self._end()

    def restart(self) -> None:
        """A new driver with the same boards, after ``kill``; its counters start where the specs say."""
        self.socket.unlink()
        self._start()

    def _end(self) -> None:
        self._lines.close()
        self._control.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()

    def close(self) -> None:
        """End the process and remove its socket."""
        if self.process.returncode is None:
            self._end()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
