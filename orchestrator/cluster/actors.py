"""What runs inside Ray workers: one actor keeps a node's agent alive, one runs a part of an attempt.

Both start our own processes with a lifeline and do nothing else, so that an agent and an attempt are the same programs
with Ray as without it, and end with the worker that started them, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.outcome import Outcome
from orchestrator.cluster.part import Part, PartSpec, free_meeting
from workers import lifeline
from workers.home import Home

KEEP_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "false"}
"""Ray 2.60 kills a worker's children with SIGKILL when it ends the worker or the cluster; ours hold a lifeline, see its
end, and leave in order: limits put back, logs written. Effective where a node's processes start with it."""
IN_ORDER = {"env_vars": KEEP_CHILDREN}
"""Runtime environment of actors that keep a process for long. Not of an attempt's: Ray imports itself once more to set
one up, which costs each start half a second; its agent books what it used however it ends."""


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
        # Imported here: an attempt's actor, which needs none of it, is of this module too, and starts with it.
        from workers.telemetry.client import AgentConnection  # noqa: PLC0415

        with AgentConnection(Path(str(self._info["socket"]))) as connection:
            connection.ask("flush")

    def stop(self) -> None:
        """End the agent in order."""
        self._child.release(timeout_s=5)


@ray.remote(max_restarts=0)
class AttemptActor:
    """Runs one part of an attempt. Detached: it goes on without whoever made it, until it is killed.

    It answers several callers at once: a controller that waits, and the one after it.

    Args:
        first: the actor of part 0, which says where to meet; ``None`` to it itself.
    """

    def __init__(self, spec: PartSpec, first: Any) -> None:  # noqa: ANN401 - Ray's actor handle
        self._devices = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        if first is None:
            self._meeting = free_meeting(ray.util.get_node_ip_address())
        else:
            self._meeting = ray.get(first.meeting.remote())
        self._part = Part(spec, self._devices, self._meeting)

    async def meeting(self) -> tuple[str, int]:
        """Where the ranks of all parts meet."""
        return self._meeting

    async def devices(self) -> tuple[str, ...]:
        """Which of its node's GPUs Ray gave it."""
        return self._devices

    async def wait(self) -> Outcome:
        """How it ended, once it has; kept for whoever asks later."""
        return await asyncio.wrap_future(self._part.outcome)

    async def stop(self, checkpoint: bool) -> None:
        """Ask it to leave, and see to it that it does."""
        self._part.stop(checkpoint=checkpoint)


def _last_words(log: Path) -> str:
    """The last line of a log, which is where an agent that cannot start says why."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else f"it said nothing in {log}"
