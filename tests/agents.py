"""A real agent process for tests, and what its ``/metrics`` and its ledger say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from workers import lifeline
from workers.contract import EnergyEntry
from workers.home import Home
from workers.telemetry.client import AgentConnection
from workers.telemetry.energy_read import read_energy


@dataclass(frozen=True, kw_only=True)
class RunningAgent:
    """An agent this test started. ``said`` are the lines it printed when it was ready, one for each time it started."""

    child: lifeline.KeptChild
    said: list[bytes]
    home: Home
    errors: Path

    @property
    def info(self) -> Mapping[str, Any]:
        """What it said the last time."""
        return dict(json.loads(self.said[-1]))

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

    def count(self, name: str) -> float:
        """A metric that is the agent's own."""
        text = httpx.get(str(self.info["metrics_url"])).text
        families = text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

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
def running_agent(
    folder: Path,
    *,
    meter: str = "simulated:H100",
    cpu: str = "none",
    pause_s: float = 3600,
    node: str | None = None,
    more: tuple[str, ...] = (),
) -> Iterator[RunningAgent]:
    """An agent of a node of its own whose ledger is below ``folder``; let go at the end if it still runs.

    One that is killed is started again after ``pause_s``.

    Without ``cpu`` it meters nothing of the machine the test runs on, which may have readable counters or not.
    """
    node = node or f"node-{uuid.uuid4().hex[:12]}"
    errors = folder / f"{node}.err"
    arguments = ["--home", str(folder / "home"), "--node", node, "--meter", meter, "--cpu", cpu, *more]

    def start() -> lifeline.Child:
        with errors.open("ab") as stderr:
            return lifeline.spawn("workers.agent", arguments, stdout=subprocess.PIPE, stderr=stderr)

    said: list[bytes] = []
    child = lifeline.KeptChild(start, said.append, pause_s=pause_s)
    assert said[0], errors.read_text()
    yield RunningAgent(child=child, said=said, home=Home(folder / "home"), errors=errors)
    if not child.is_released:
        child.release(timeout_s=10)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only its entry waits for a parent to read it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
