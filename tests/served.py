"""A ledger that a real controller serves over a fake cluster, so that commands meet what they meet on Ray."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from orchestrator.cluster.fake import FakeClock, FakeCluster
from orchestrator.cluster.options import ControllerOptions
from orchestrator.cluster.port import Ended
from orchestrator.lifecycle import JobRecord
from orchestrator.plan import Plan
from orchestrator.serve import ServeOptions, Server
from orchestrator.store import Store
from tests.queues import node
from workers.home import Home

ADDRESS = "192.0.2.1:6379"


class PacedCluster(FakeCluster):
    """A fake whose waits take a moment of real time; it notes when its agents were asked to write."""

    def __init__(self, *names: str, lasts_s: float | None = 0.2) -> None:
        nodes = tuple(node(f"n{number}", name) for number, name in enumerate(names or ("H100",)))
        super().__init__(nodes, clock=FakeClock(time.time_ns()), lasts_s=lambda *_: lasts_s)
        self.pause, self.flushed_ns = threading.Event(), list[int]()

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        self.pause.wait(min(timeout_s, 0.01))
        return super().ended(timeout_s=timeout_s)

    def flush(self) -> None:
        self.flushed_ns.append(time.time_ns())


@contextlib.contextmanager
def served(home: Home, cluster: FakeCluster, *, run_ids: Sequence[str] = ()) -> Iterator[Server]:
    """A controller in a thread of its own, from its first beat until the block is left."""
    ready: list[Server] = []
    is_ready = threading.Event()

    def serve() -> None:
        with contextlib.closing(Store(home.state_db)) as store:
            options = ServeOptions(home=home, address=ADDRESS, started=ControllerOptions(), run_ids=tuple(run_ids))
            ready.append(Server(options, store, cluster, targets_url="http://192.0.2.1:1/", on_ready=is_ready.set))
            ready[0].run()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert is_ready.wait(30)
        yield ready[0]
    finally:
        if ready:
            ready[0].leave()
        thread.join()


class Listener:
    """An observer that remembers what it is told; ``interrupt_when`` presses Ctrl-C once jobs stand so."""

    def __init__(self, interrupt_when: str | None = None) -> None:
        self.said: list[str] = []
        self._interrupt_when = interrupt_when

    def say(self, text: str) -> None:
        self.said.append(text)

    def planned(self, plan: Plan) -> None:
        self.said.append(f"{len(plan.jobs)} planned")

    def progressed(self, home: Home, jobs: Sequence[JobRecord]) -> None:
        if self._interrupt_when is not None and any(job.state.value == self._interrupt_when for job in jobs):
            self._interrupt_when = None
            raise KeyboardInterrupt
