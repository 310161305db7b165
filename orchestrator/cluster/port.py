"""The cluster's port: what the controller needs of whatever runs attempts. Ray is one adapter, the fake another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.accounting.clocks import ClockReading
from orchestrator.scheduling.snapshot import ClusterView
from workers.contract import JobSpec


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that is over.

    Attributes:
        exit_code: of its process; ``None`` when the process was lost with its worker or node, or never started.
            Of several ranks, the first that did not end with 0.
        reason: why it did not end well, for its user; ``None`` when it did.
        ended_ns: when it ended, ns since the epoch, where that is known better than by when it was seen.
    """

    job_id: str
    attempt: int
    exit_code: int | None
    reason: str | None
    ended_ns: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it did what it was to do."""
        return self.exit_code == 0


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """A node's agent: where attempts reach it, where Prometheus scrapes it, and what it meters.

    Attributes:
        simulated: whether its devices are; ``accelerator``: their type.
    """

    node_id: str
    node: str
    socket: str
    metrics_url: str
    simulated: bool
    accelerator: str


class Cluster(Protocol):
    """Runs attempts on nodes. Calls come from one thread; none waits for an attempt to end."""

    def view(self) -> ClusterView:
        """The nodes now, with what is free after everything launched so far."""
        ...

    def agents(self) -> tuple[AgentInfo, ...]:
        """The agents of the nodes that have devices."""
        ...

    def launch(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Start an attempt on nodes, one part on each; returns at once. Its end shows in ``ended``, once.

        It goes on when this process ends: the next one takes it up with ``adopt``.
        """
        ...

    def adopt(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Take up an attempt that an earlier process launched, or was about to; returns at once.

        Its end shows in ``ended`` whatever became of it: that it ended meanwhile, that it was lost, or that it never
        started. After that nothing of it runs.
        """
        ...

    def stop(self, job_id: str, *, checkpoint: bool) -> None:
        """Ask a job's attempt to leave; its end shows in ``ended``. Unknown jobs are ignored, twice does no harm.

        With ``checkpoint`` it may first save where it is. One that does not leave in time is killed.
        """
        ...

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        """Attempts that ended since the last call; waits up to ``timeout_s`` for the first."""
        ...

    def flush(self) -> None:
        """Return once every agent has written what it booked so far; an agent that is lost is passed over."""
        ...

    def clocks(self) -> tuple[ClockReading, ...]:
        """How far each metered node's clock is from this one, measured now; nodes that do not answer are left out."""
        ...

    def close(self) -> None:
        """Let go of the cluster, which goes on, as do attempts."""
        ...
