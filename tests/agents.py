"""A real agent process for tests, and what its ``/metrics`` and its ledger say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from workers import lifeline
from workers.contract import EnergyEntry
from workers.home import Home
from workers.telemetry.client import AgentConnection
from workers.telemetry.energy_log import read_energy


@dataclass(frozen=True, kw_only=True)
class RunningAgent:
    """An agent this test started. ``info`` is the line it printed when it was ready."""

    child: lifeline.Child
    info: Mapping[str, object]
    home: Home
    errors: Path

    @property
    def node(self) -> str:
        return str(self.info["node"])

    @property
    def socket(self) -> Path:
        return Path(str(self.info["socket"]))

    def connect(self) -> AgentConnection:
        return AgentConnection(self.socket)

    def metrics(self, name: str) -> dict[str, float]:
        """One metric's values: of a device by its accelerator type, of a lease or job by its job id."""
        text = httpx.get(str(self.info["metrics_url"])).text
        return {
            sample.labels.get("job_id") or sample.labels["model"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def counter_mj(self) -> int:
        """What all devices have counted since the agent started, mJ."""
        return round(1000 * sum(self.metrics("wattledger_device_energy_joules_total").values()))

    def entries(self) -> tuple[EnergyEntry, ...]:
        """What is on disk now."""
        return read_energy(self.home, node=self.node)

    def flush(self) -> None:
        with self.connect() as connection:
            connection.ask("flush")


@contextlib.contextmanager
def running_agent(folder: Path, *, meter: str = "simulated:H100", cpu: str = "none") -> Iterator[RunningAgent]:
    """An agent of a node of its own whose ledger is below ``folder``; let go at the end if it still runs.

    Without ``cpu`` it meters nothing of the machine the test runs on, which may have readable counters or not.
    """
    node = f"node-{uuid.uuid4().hex[:12]}"
    errors = folder / f"{node}.err"
    with errors.open("wb") as stderr:
        child = lifeline.spawn(
            "workers.agent",
            ["--home", str(folder / "home"), "--node", node, "--meter", meter, "--cpu", cpu],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert child.process.stdout is not None
    with child.process.stdout as said:
        line = said.readline()
    assert line, errors.read_text()
    yield RunningAgent(child=child, info=json.loads(line), home=Home(folder / "home"), errors=errors)
    if child.process.returncode is None:
        child.release(timeout_s=10)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only its entry waits for a parent to read it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
