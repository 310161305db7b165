"""Processes of a benchmark: our agent and its jobs, the peers, all on one simulated driver."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.environment import OFFLINE
from tests.driver.driver import ROOT
from workers import lifeline
from workers.contract import EnergyEntry
from workers.home import Home
from workers.telemetry.energy_read import read_energy

PEERS_SCRIPT = Path(__file__).with_name("peers.py")


class Meter:
    """A process that meters when it is told to; it ends with its standard input."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **OFFLINE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def tell(self, what: str, at_ns: int) -> None:
        """``begin`` or ``end``, at a time; does not wait. A meter that has ended by itself hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{what} {at_ns}\n".encode())
            self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next reply; one that has ended by itself says ``exited``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"error": "exited", "at_ns": 0}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def peer(python: Path, kind: str, period_s: float, environment: Mapping[str, str]) -> Meter:
    """A peer, not yet waited for."""
    path = f"{python.parent}:{environment.get('PATH', '')}"
    return Meter([str(python), str(PEERS_SCRIPT), kind, str(period_s)], {**environment, "PATH": path})


@dataclass(frozen=True)
class OurAgent:
    """Our agent; ``entries`` after it was let go."""

    child: lifeline.Child
    info: Mapping[str, Any]
    home: Home

    def job(self, job_id: str, environment: Mapping[str, str]) -> Meter:
        """A stand-in job, not yet waited for."""
        device = self.info["devices"][0]["uuid"]
        return Meter([sys.executable, "-m", "tests.bench.job", self.info["socket"], job_id, device], environment)

    def entries(self) -> tuple[EnergyEntry, ...]:
        """What is in the ledger."""
        return read_energy(self.home, node=str(self.info["node"]))


@contextlib.contextmanager
def our_agent(
    environment: Mapping[str, str], folder: Path, *, interval_ms: int = 100, meter: str = "nvml"
) -> Iterator[OurAgent]:
    """``python -m workers.agent``, let go at the end, so that the ledger is complete after the block."""
    options = ["--home", str(folder), "--node", "bench", "--meter", meter, "--interval-ms", str(interval_ms)]
    child = lifeline.spawn("workers.agent", options, environment=environment, stdout=subprocess.PIPE)
    assert child.process.stdout is not None
    with child.process.stdout as said:
        info = json.loads(said.readline())
    try:
        yield OurAgent(child, info, Home(folder))
    finally:
        child.release(timeout_s=10)
