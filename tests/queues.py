"""A ledger, a fake cluster and a controller over both, on one clock that only the tests let pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.cluster.fake import FakeCluster
from orchestrator.controller import Controller
from orchestrator.lifecycle import JobRecord
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.units import NS_PER_S

STEPS = 500
"""No test needs more steps to see all jobs end."""


def node(name: str, accelerator: str | None = "H100", *, gpus: int = 1, memory_gb: float | None = None) -> NodeView:
    """An empty node of eight cores."""
    return NodeView(
        node_id=f"id-{name}",
        name=name,
        accelerator=accelerator,
        simulated=True,
        gpus_total=gpus,
        gpus_free=gpus,
        cpus_total=8.0,
        cpus_free=8.0,
        memory_free_gb=memory_gb,
        memory_total_gb=memory_gb,
    )


def spec(
    job_id: str = "j",
    *,
    needs: Sequence[str] = (),
    retry: dict[str, object] | None = None,
    schedule: dict[str, object] | None = None,
    **resources: object,
) -> JobSpec:
    """A job of one GPU."""
    return JobSpec.model_validate(
        {
            "job_id": job_id,
            "task": "digits",
            "model": "tiny/vit",
            "needs": list(needs),
            "resources": resources,
            "retry": retry or {},
            "schedule": schedule or {},
        }
    )


def run_record(run_id: str = "r", *, at_ns: int = 0, user: str | None = None, bound: bool = False) -> RunRecord:
    """A submission."""
    return RunRecord(run_id=run_id, name="n", manifest="", submitted_ns=at_ns, host="h", pid=1, user=user, bound=bound)


class Queue:
    """A submission that is driven step by step.

    Attributes:
        store: the test's own connection, as another command has it; the controller has one of its own.
    """

    def __init__(self, path: Path, cluster: FakeCluster, *specs: JobSpec, run: RunRecord | None = None) -> None:
        self.path, self.cluster, self.run = path, cluster, run or run_record()
        self.store = Store(path)
        self._stores = [self.store]
        if specs:
            self.store.submit(self.run, specs)
        self.controller = self.begin()

    def begin(
        self, *, kind: type[Store] = Store, run_ids: Sequence[str] = (), patience_s: float | None = None
    ) -> Controller:
        """A controller that starts, in the place of the one before."""
        store = kind(self.path)
        self._stores.append(store)
        self.controller = Controller(
            store, self.cluster, run_ids=run_ids, clock_ns=self.cluster.clock, patience_s=patience_s
        )
        self.controller.adopt()
        return self.controller

    def kill(self) -> None:
        """The controller dies between two steps; another one starts."""
        self.cluster.close()
        self.begin()

    def step(self, wait_s: float = 0.0) -> bool:
        return self.controller.step(wait_s=wait_s)

    def finish(self, *, wait_s: float = 60.0) -> int:
        """Step until nothing is left, the first time without a wait; gives how many steps that took."""
        for steps in range(1, STEPS):
            if not self.step(wait_s if steps > 1 else 0.0):
                return steps
        raise AssertionError(f"the loop does not end: {self.states()}")

    def close(self) -> None:
        for store in self._stores:
            store.close()

    @property
    def now_s(self) -> float:
        return self.cluster.clock() / NS_PER_S

    def states(self) -> dict[str, str]:
        return {job.job_id: job.state.value for job in self.store.jobs()}

    def job(self, job_id: str = "j") -> JobRecord:
        return self.store.job(job_id)

    def attempts(self, job_id: str = "j") -> list[tuple[str, str | None]]:
        return [(attempt.state.value, attempt.reason) for attempt in self.job(job_id).attempts]

    def started(self) -> list[tuple[str, int]]:
        return [(launched.spec.job_id, launched.attempt) for launched in self.cluster.history]

    def story(self, job_id: str = "j") -> list[str]:
        return [what for _, what in self.store.events(job_id)]
