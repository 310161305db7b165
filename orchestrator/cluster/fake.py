"""A cluster that runs nothing and behaves: nodes fill up, attempts end as scripted, cancelled ones stay silent.

It ships beside the real thing so that the controller is tested against the same port; one suite of tests runs over
both. It does not model:

- time: an attempt lasts as many calls of ``ended`` as its script says, and ``timeout_s`` is not waited for;
- agents and what they measure: ``agents`` is empty, ``flush`` does nothing, nothing is written to a ledger;
- nodes that leave or join, and work of others on the same nodes;
- a view that lags: Ray's own books are a moment behind, here what has ended is free at once;
- a start that fails: every launch that fits starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.accounting.clocks import ClockReading, measure
from orchestrator.cluster.port import AgentInfo, Ended
from orchestrator.scheduling.room import UNITS, Room, needs_of, whole_room
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
    """Behaves as ``Cluster`` says.

    Args:
        nodes: the nodes, empty.
        outcome: exit code of an attempt by (job, attempt number), ``None`` for a lost worker; default 0.
        lasts: calls of ``ended`` until an attempt has ended, by (job, attempt number); default 1.
        offsets_ns: node id to how far its clock is ahead, ns; default none.

    Attributes:
        running: what runs now, by job id, and how many calls of ``ended`` it has left.
        history: every attempt that was started, in order.
    """

    def __init__(
        self,
        nodes: tuple[NodeView, ...],
        *,
        outcome: Callable[[JobSpec, int], int | None] = lambda *_: 0,
        lasts: Callable[[JobSpec, int], int] = lambda *_: 1,
        offsets_ns: Mapping[str, int] | None = None,
    ) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._outcome, self._lasts, self._offsets_ns = outcome, lasts, dict(offsets_ns or {})
        self.running: dict[str, tuple[Launched, int]] = {}
        self.history: list[Launched] = []

    def view(self) -> ClusterView:
        """The nodes, less what runs on them."""
        return ClusterView(nodes=tuple(self._free(node) for node in self._nodes.values()))

    def _free(self, node: NodeView) -> NodeView:
        room = self._room(node)
        memory_gb = None if room.memory is None else room.memory / UNITS
        return replace(node, gpus_free=room.gpus, cpus_free=room.cpus / UNITS, memory_free_gb=memory_gb)

    def _room(self, node: NodeView) -> Room:
        room = whole_room(node)
        for launched, _ in self.running.values():
            if launched.node_id == node.node_id:
                room.take(needs_of(launched.spec))
        return room

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
        assert spec.job_id not in self.running, f"{spec.job_id} runs already"
        assert self._room(self._nodes[node_id]).fits(needs_of(spec)), f"{node_id} has no room for {spec.job_id}"
        launched = Launched(spec=spec, attempt=attempt, node_id=node_id)
        self.running[spec.job_id] = launched, self._lasts(spec, attempt)
        self.history.append(launched)

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:  # noqa: ARG002 - nothing is waited for
        """What has lasted its calls, in the order it was started."""
        aged = {job_id: (launched, left - 1) for job_id, (launched, left) in self.running.items()}
        self.running = {job_id: (launched, left) for job_id, (launched, left) in aged.items() if left > 0}
        return tuple(self._end(launched) for launched, left in aged.values() if left <= 0)

    def _end(self, run: Launched) -> Ended:
        exit_code = self._outcome(run.spec, run.attempt)
        reason = None if exit_code == 0 else "its worker was lost" if exit_code is None else f"exit code {exit_code}"
        return Ended(job_id=run.spec.job_id, attempt=run.attempt, exit_code=exit_code, reason=reason)

    def cancel(self, job_id: str) -> None:
        """Free what it held."""
        self.running.pop(job_id, None)

    def flush(self) -> None:
        """Nothing is buffered."""

    def clocks(self) -> tuple[ClockReading, ...]:
        """The clock of every node with GPUs as far off as it was told; an exchange takes a millisecond each way."""
        return tuple(
            measure(node.name, _exchanges(self._offsets_ns.get(node.node_id, 0), clock := _Clock()), clock.now_ns)
            for node in self._nodes.values()
            if node.gpus_total
        )

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Clock:
    """The head's clock while a question travels."""

    time_ns: int = 0

    def now_ns(self) -> int:
        return self.time_ns


def _exchanges(offset_ns: int, clock: _Clock) -> Callable[[], tuple[int, int]]:
    def ask() -> tuple[int, int]:
        clock.time_ns += 1_000_000
        answered_ns = clock.time_ns + offset_ns
        clock.time_ns += 1_000_000
        return answered_ns, answered_ns

    return ask
