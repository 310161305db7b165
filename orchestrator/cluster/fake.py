"""A cluster that runs nothing and behaves: nodes fill up, attempts end as scripted, cancelled ones stay silent.

It ships beside the real thing so that the controller is tested against the same port. It does not model time, agents
that fail, or nodes that leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.cluster.port import AgentInfo, Ended
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec
from workers.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Launched:
    """An attempt that was started and has not ended."""

    spec: JobSpec
    attempt: int
    node_id: str


class FakeCluster:
    """Behaves as ``Cluster`` says. Each call of ``ended`` ends every running attempt, as ``outcome`` says.

    Args:
        nodes: the nodes, empty.
        outcome: exit code of an attempt by (job, attempt number), ``None`` for a lost worker; default 0.
    """

    def __init__(
        self, nodes: tuple[NodeView, ...], *, outcome: Callable[[JobSpec, int], int | None] = lambda *_: 0
    ) -> None:
        self._nodes: Mapping[str, NodeView] = {node.node_id: node for node in nodes}
        self._outcome = outcome
        self.running: dict[str, Launched] = {}
        self.history: list[Launched] = []

    def view(self) -> ClusterView:
        """The nodes, less what runs on them."""
        return ClusterView(nodes=tuple(self._free(node) for node in self._nodes.values()))

    def _free(self, node: NodeView) -> NodeView:
        here = [run.spec.resources for run in self.running.values() if run.node_id == node.node_id]
        return replace(
            node,
            gpus_free=node.gpus_total - sum(wanted.gpus for wanted in here),
            cpus_free=node.cpus_total - sum(wanted.cpus for wanted in here),
        )

    def agents(self) -> tuple[AgentInfo, ...]:
        """None: nothing is metered."""
        return ()

    def launch(self, spec: JobSpec, *, attempt: int, node_id: str) -> None:
        """Hold the node's resources.

        Raises:
            UnknownNameError: no such node.
            AssertionError: more than the node has, or a job twice: a bug in whoever decided it.
        """
        if node_id not in self._nodes:
            raise UnknownNameError("node", node_id, self._nodes)
        free = self._free(self._nodes[node_id])
        assert spec.job_id not in self.running, f"{spec.job_id} runs already"
        assert spec.resources.gpus <= free.gpus_free, f"{node_id} has {free.gpus_free} GPUs free"
        assert spec.resources.cpus <= free.cpus_free, f"{node_id} has {free.cpus_free} CPUs free"
        self.running[spec.job_id] = Launched(spec=spec, attempt=attempt, node_id=node_id)
        self.history.append(self.running[spec.job_id])

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:  # noqa: ARG002 - nothing is waited for
        """Everything that runs, ended."""
        done, self.running = list(self.running.values()), {}
        return tuple(self._end(run) for run in done)

    def _end(self, run: Launched) -> Ended:
        exit_code = self._outcome(run.spec, run.attempt)
        reason = None if exit_code == 0 else "its worker was lost" if exit_code is None else f"exit code {exit_code}"
        return Ended(job_id=run.spec.job_id, attempt=run.attempt, exit_code=exit_code, reason=reason)

    def cancel(self, job_id: str) -> None:
        """Free what it held."""
        self.running.pop(job_id, None)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is held."""
