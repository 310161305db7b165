"""A cluster that runs nothing and behaves: nodes fill up, leave and join, attempts end as scripted, on its own clock.

It ships beside the real thing so that the controller is tested against the same port; one suite of tests runs over
both. As on Ray, attempts go on when a controller is gone: ``close`` forgets only who asked, and the next controller
takes them up with ``adopt``. It does not model:

- agents and what they measure: ``agents`` is empty, ``flush`` does nothing, nothing is written to a ledger;
- ranks: a gang is one attempt on several nodes, and ends as a whole;
- work of others on the same nodes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.accounting.clocks import ClockReading, measure
from orchestrator.cluster.port import AgentInfo, Ended
from orchestrator.scheduling.room import UNITS, Needs, needs_of
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from workers.contract import JobSpec
from workers.errors import UnknownNameError
from workers.units import NS_PER_S

ASKED_TO_SAVE, ASKED_TO_LEAVE = 75, 130
"""Exit codes of an attempt that left after a checkpoint, and of one that left at once."""


class FakeClock:
    """The time, which passes only where somebody waits."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """The time, ns since the epoch."""
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += round(seconds * NS_PER_S)


@dataclass(frozen=True, kw_only=True)
class Launched:
    """An attempt that was started."""

    spec: JobSpec
    attempt: int
    nodes: tuple[str, ...]


class FakeCluster:
    """Behaves as ``Cluster`` says.

    Args:
        nodes: the nodes, empty.
        clock: its time: ``ended`` lets it pass until the first attempt ends, or as long as it may wait.
        outcome: exit code of an attempt by (job, attempt number), ``None`` for a lost worker; default 0.
        lasts_s: seconds an attempt runs, by (job, attempt number), ``None`` until it is stopped; default 1.
        leaves_s: seconds it takes to leave when asked, by (job, whether it may save first); default 0.
        starts: whether an attempt starts at all, by (job, attempt number); one that does not is lost at once.
        lag_s: seconds until the view shows as free what an attempt that ended held; default 0.
        offsets_ns: node id to how far its clock is ahead, ns; default none.

    Attributes:
        running: what runs now, by job id.
        history: every attempt that was launched, in order.
    """

    def __init__(
        self,
        nodes: tuple[NodeView, ...],
        *,
        clock: FakeClock | None = None,
        outcome: Callable[[JobSpec, int], int | None] = lambda *_: 0,
        lasts_s: Callable[[JobSpec, int], float | None] = lambda *_: 1.0,
        leaves_s: Callable[[JobSpec, bool], float] = lambda *_: 0.0,
        starts: Callable[[JobSpec, int], bool] = lambda *_: True,
        lag_s: float = 0.0,
        offsets_ns: Mapping[str, int] | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self._nodes = {node.node_id: _Node.of(node) for node in nodes}
        self._outcome, self._lasts_s, self._leaves_s, self._starts = outcome, lasts_s, leaves_s, starts
        self._lag_ns, self._offsets_ns = round(lag_s * NS_PER_S), dict(offsets_ns or {})
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._ends: list[tuple[int, int, _Attempt]] = []  # a heap by time, then in order of launch
        self._releases: list[tuple[int, int, _Attempt]] = []
        self._told: list[Ended] = []
        self._order = itertools.count()
        self._view: ClusterView | None = None
        self.running: dict[str, Launched] = {}
        self.history: list[Launched] = []

    def view(self) -> ClusterView:
        """The nodes, less what runs on them, or did until a moment ago."""
        while self._releases and self._releases[0][0] <= self.clock():
            heapq.heappop(self._releases)[2].release(self._nodes)
            self._view = None
        if self._view is None:
            self._view = ClusterView(nodes=tuple(node.view() for node in self._nodes.values()))
        return self._view

    def agents(self) -> tuple[AgentInfo, ...]:
        """None: nothing is metered."""
        return ()

    def launch(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Hold the nodes' resources. On a node that has left, or where it does not start, it is lost at once.

        Raises:
            UnknownNameError: no such node.
            AssertionError: more than a node has, the wrong number of nodes, or a job twice: a bug of who decided it.
        """
        for node_id in nodes:
            if node_id not in self._nodes:
                raise UnknownNameError("node", node_id, self._nodes)
        assert spec.job_id not in self.running, f"{spec.job_id} runs already"
        assert (spec.job_id, attempt) not in self._attempts, f"attempt {attempt} of {spec.job_id} was launched before"
        assert len(set(nodes)) == len(nodes) == spec.resources.nodes, f"{spec.job_id} is not for {len(nodes)} nodes"
        self.view()  # what is free by now is free
        for node_id in nodes:
            assert self._nodes[node_id].choose(needs_of(spec)) is not None, f"{node_id} has no room for {spec.job_id}"
        launched = Launched(spec=spec, attempt=attempt, nodes=nodes)
        made = _Attempt(launched, started_ns=self.clock(), order=next(self._order))
        self.history.append(launched)
        self._attempts[spec.job_id, attempt] = made
        if not self._starts(spec, attempt) or not all(self._nodes[node_id].node.alive for node_id in nodes):
            self._end(made, None, "it did not start")
            return
        made.hold(self._nodes)
        self._view = None
        self.running[spec.job_id] = launched
        made.exit_code = self._outcome(spec, attempt)
        lasts_s = self._lasts_s(spec, attempt)
        if lasts_s is not None:
            self._plan_end(made, self.clock() + round(lasts_s * NS_PER_S))

    def adopt(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Take up what goes on; what has ended is told again, and what was never launched is lost."""
        made = self._attempts.get((spec.job_id, attempt))
        if made is None:
            made = _Attempt(Launched(spec=spec, attempt=attempt, nodes=nodes), self.clock(), next(self._order))
            self._attempts[spec.job_id, attempt] = made
            self._end(made, None, "it never started")
        made.is_watched = True
        if made.ended is not None and made.ended not in self._told:
            self._told.append(made.ended)

    def stop(self, job_id: str, *, checkpoint: bool) -> None:
        """It leaves after its time, unless it ends of itself before that."""
        launched = self.running.get(job_id)
        if launched is None:
            return
        made = self._attempts[job_id, launched.attempt]
        leaves_ns = self.clock() + round(self._leaves_s(launched.spec, checkpoint) * NS_PER_S)
        if made.ends_ns is None or leaves_ns < made.ends_ns:
            made.exit_code = ASKED_TO_SAVE if checkpoint else ASKED_TO_LEAVE
            self._plan_end(made, leaves_ns)

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        """What has ended since, in the order of its end."""
        limit_ns = self.clock() + round(timeout_s * NS_PER_S)
        self._end_due()
        if not self._told:
            while self._ends and self._ends[0][2].ends_ns != self._ends[0][0]:
                heapq.heappop(self._ends)
            self.clock.now_ns = min(limit_ns, self._ends[0][0]) if self._ends else limit_ns
            self._end_due()
        told, self._told = tuple(self._told), []
        return told

    def lose(self, node_id: str) -> None:
        """A node leaves, and with it every attempt that had a part there."""
        node = self._nodes[node_id]
        node.node = replace(node.node, alive=False)
        for job_id, launched in list(self.running.items()):
            if node_id in launched.nodes:
                self._end(self._attempts[job_id, launched.attempt], None, f"node {node.node.name} was lost")
        self._view = None

    def join(self, node: NodeView) -> None:
        """A node joins, empty; also one that was lost and comes back."""
        for _, _, made in self._releases:
            made.parts.pop(node.node_id, None)
        self._nodes[node.node_id] = _Node.of(node)
        self._view = None

    def flush(self) -> None:
        """Nothing is buffered."""

    def clocks(self) -> tuple[ClockReading, ...]:
        """The clock of every node with GPUs as far off as it was told; an exchange takes a millisecond each way."""
        return tuple(
            measure(node.name, _exchanges(self._offsets_ns.get(node.node_id, 0), clock := FakeClock()), clock)
            for node in self.view().nodes
            if node.gpus_total
        )

    def close(self) -> None:
        """The controller is gone; attempts go on, and nobody is told of their ends before they are adopted."""
        for made in self._attempts.values():
            made.is_watched = False
        self._told = []

    def _plan_end(self, made: _Attempt, ends_ns: int) -> None:
        made.ends_ns = ends_ns
        heapq.heappush(self._ends, (ends_ns, made.order, made))

    def _end_due(self) -> None:
        while self._ends and self._ends[0][0] <= self.clock():
            ends_ns, _, made = heapq.heappop(self._ends)
            if made.ended is None and made.ends_ns == ends_ns:
                code = made.exit_code
                self._end(made, code, "its worker was lost" if code is None else f"exit code {code}" if code else None)

    def _end(self, made: _Attempt, exit_code: int | None, reason: str | None) -> None:
        job_id, attempt = made.launched.spec.job_id, made.launched.attempt
        ended_ns = self.clock() if made.ends_ns is None else min(self.clock(), made.ends_ns)
        made.ended = Ended(job_id=job_id, attempt=attempt, exit_code=exit_code, reason=reason, ended_ns=ended_ns)
        made.ends_ns = ended_ns
        if made.is_watched:
            self._told.append(made.ended)
        if self.running.get(job_id) is made.launched:
            del self.running[job_id]
            heapq.heappush(self._releases, (ended_ns + self._lag_ns, made.order, made))


@dataclass
class _Node:
    """A node with what is free: of each GPU, of the CPU and of memory, in ``UNITS`` parts."""

    node: NodeView
    gpus: list[int]
    cpus: int
    memory: int | None

    @classmethod
    def of(cls, node: NodeView) -> _Node:
        memory = None if node.memory_total_gb is None else round(node.memory_total_gb * UNITS)
        return cls(node=node, gpus=[UNITS] * node.gpus_total, cpus=round(node.cpus_total * UNITS), memory=memory)

    def choose(self, needs: Needs) -> Mapping[int, int] | None:
        """How much a job would hold of which GPU; ``None`` where there is no room for it."""
        part = needs.share or UNITS
        count = needs.gpus or (1 if needs.share else 0)
        # The fullest GPU that has room, so that whole ones stay whole.
        chosen = sorted((i for i, free in enumerate(self.gpus) if free >= part), key=lambda i: self.gpus[i])[:count]
        memory_fits = self.memory is None or needs.memory is None or needs.memory <= self.memory
        fits = len(chosen) == count and needs.cpus <= self.cpus and memory_fits
        return dict.fromkeys(chosen, part) if fits else None

    def hold(self, needs: Needs) -> Mapping[int, int]:
        """Take what a job needs, for which there is room, and give what it holds of which GPU."""
        held = self.choose(needs)
        assert held is not None, f"{self.node.node_id} has no room"
        self._add(held, needs, -1)
        return held

    def release(self, held: Mapping[int, int], needs: Needs) -> None:
        self._add(held, needs, 1)

    def _add(self, held: Mapping[int, int], needs: Needs, sign: int) -> None:
        for index, part in held.items():
            self.gpus[index] += sign * part
        self.cpus += sign * needs.cpus
        if self.memory is not None:
            self.memory += sign * (needs.memory or 0)

    def view(self) -> NodeView:
        return replace(
            self.node,
            gpus_free=self.gpus.count(UNITS),
            shares_free=tuple(sorted(free / UNITS for free in self.gpus if 0 < free < UNITS)),
            cpus_free=self.cpus / UNITS,
            memory_free_gb=None if self.memory is None else self.memory / UNITS,
        )


@dataclass(eq=False)
class _Attempt:
    """An attempt through its life; ``parts`` is what it holds of which GPU, by node."""

    launched: Launched
    started_ns: int
    order: int
    is_watched: bool = True
    exit_code: int | None = None
    ends_ns: int | None = None
    ended: Ended | None = None
    parts: dict[str, Mapping[int, int]] = field(default_factory=dict)

    def hold(self, nodes: Mapping[str, _Node]) -> None:
        needs = needs_of(self.launched.spec)
        for node_id in self.launched.nodes:
            self.parts[node_id] = nodes[node_id].hold(needs)

    def release(self, nodes: Mapping[str, _Node]) -> None:
        needs = needs_of(self.launched.spec)
        for node_id, held in self.parts.items():
            nodes[node_id].release(held, needs)


def _exchanges(offset_ns: int, clock: FakeClock) -> Callable[[], tuple[int, int]]:
    def ask() -> tuple[int, int]:
        clock.now_ns += 1_000_000
        answered_ns = clock.now_ns + offset_ns
        clock.now_ns += 1_000_000
        return answered_ns, answered_ns

    return ask
