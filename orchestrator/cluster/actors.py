"""What runs inside Ray workers: one actor keeps a node's agent alive, one runs an attempt.

Both start our own process with a lifeline and do nothing else, so that an agent and an attempt are the same programs
with Ray as without it, and end with the worker that started them, however that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import ray

from workers import lifeline
from workers.attempt import REASON_FILE
from workers.home import Home
from workers.telemetry.client import AgentConnection

LOG_FILE = "log.txt"
IN_ORDER = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "false"}}
"""Runtime environment of both actors. Ray 2.60 kills a worker's children with SIGKILL when the worker is killed or the
cluster ends; ours hold a lifeline, see its end, and leave in order: limits put back, logs written."""


@ray.remote(num_cpus=0, max_restarts=-1)
class AgentActor:
    """Keeps one node's agent. Detached: it lives until its node or ``stop`` ends it."""

    def __init__(self, home: str, node: str, meter: str, listen: str, access: list[str]) -> None:
        self._log = Home(Path(home)).run / f"agent-{node}.log"
        self._arguments = ["--home", home, "--node", node, "--meter", meter, "--listen", listen, *access]
        self._child = lifeline.KeptChild(self._start, self._hear)

    def _start(self) -> lifeline.Child:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            return lifeline.spawn("workers.agent", self._arguments, stdout=subprocess.PIPE, stderr=log)

    def _hear(self, line: bytes) -> None:
        self._info = json.loads(line) if line else {"error": _last_words(self._log)}

    def info(self) -> dict[str, object]:
        """What the agent said when it was ready, the last time; ``{"error"}`` when it did not start.

        One that has ended is started again at once: whoever asks is about to need it.
        """
        if self._child.process.poll() is not None:
            self._child.release(timeout_s=5)
            self._child = lifeline.KeptChild(self._start, self._hear)
        return self._info

    def clock(self) -> tuple[int, int]:
        """When this node got the question and when it answers, by its own clock, ns since the epoch."""
        return time.time_ns(), time.time_ns()

    def flush(self) -> None:
        """Have the agent write what it booked."""
        with AgentConnection(Path(str(self._info["socket"]))) as connection:
            connection.ask("flush")

    def stop(self) -> None:
        """End the agent in order."""
        self._child.release(timeout_s=5)


@ray.remote(max_restarts=0)
class AttemptActor:
    """Runs one attempt. Killing the actor ends it."""

    def run(
        self, spec: str, job_id: str, attempt: int, home: str, agent: str, simulated: bool
    ) -> tuple[int, str | None]:
        """Run to the end; gives the exit code and, when it is not 0, why."""
        folder = Home(Path(home)).attempt_folder(job_id, attempt)
        folder.mkdir(parents=True, exist_ok=True)
        job_file = folder / "job.json"
        job_file.write_text(spec, encoding="utf-8")
        devices = [part for gpu in ray.get_gpu_ids() for part in ("--device", str(gpu))]
        arguments = [str(job_file), "--home", home, "--attempt", str(attempt), "--agent", agent, *devices]
        with (folder / LOG_FILE).open("ab") as log:
            child = lifeline.spawn(
                "workers.attempt", arguments, environment=_environment(simulated), stdout=log, stderr=log
            )
            exit_code = child.process.wait()
        return exit_code, None if exit_code == 0 else _reason(folder, exit_code)


def _last_words(log: Path) -> str:
    """The last line of a log, which is where an agent that cannot start says why."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else f"it said nothing in {log}"


def _environment(simulated: bool) -> dict[str, str]:
    """The worker's environment; work for a simulated device must not land on a real one beside it."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if simulated else dict(os.environ)


def _reason(folder: Path, exit_code: int) -> str:
    """What the attempt said, else how its process ended."""
    try:
        return (folder / REASON_FILE).read_text(encoding="utf-8")
    except OSError:
        how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return f"its process ended with {how}; see {folder / LOG_FILE}"
