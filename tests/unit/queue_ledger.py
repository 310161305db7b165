"""Fills a ledger by hand as commands and a controller would: runs, attempts, heartbeats, progress and logs on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.queue_view.logs import log_path
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from orchestrator.store import ControllerRecord, RunRecord, Store
from tests.unit.ledger import at
from workers.contract import JobSpec, Phase
from workers.home import Home
from workers.progress import Progress, write_progress


def node(name: str, accelerator: str | None, *, gpus: int = 1, free: int = 0, simulated: bool = True) -> NodeView:
    """A node whose id is as unlike a name as Ray's are."""
    return NodeView(
        node_id=f"{abs(hash_of(name)):056x}",
        name=name,
        accelerator=accelerator,
        simulated=simulated,
        gpus_total=gpus,
        gpus_free=free,
        cpus_total=8.0,
        cpus_free=8.0 - (gpus - free),
        memory_free_gb=None,
    )


def hash_of(name: str) -> int:
    """The same in every process."""
    return int.from_bytes(name.encode().ljust(20, b"."), "big")


def progress(done: int, total: int, *, at_s: float = 100, **more: Any) -> Progress:
    """What an attempt says that began to train at 0 s, and does nothing else."""
    fields: dict[str, Any] = {
        "phase": Phase.TRAIN,
        "position": 1,
        "phases": 1,
        "done": done,
        "total": total,
        "loss": None,
        "updated_ns": at(at_s),
        "started_ns": at(0),
        "phase_started_ns": at(0),
        "job_done": done,
        "job_total": total,
    }
    return Progress(**(fields | more))


class QueueLedger:
    """A ledger of decisions that is being filled; times are seconds after the fixed start of ``tests.unit.ledger``."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.store = Store(self.home.state_db)

    def submit(
        self, run_id: str, *job_ids: str, user: str | None = "ada", at_s: float = -60, bound: bool = False, **spec: Any
    ) -> None:
        """Jobs of one run; ``spec`` goes into each."""
        name = spec.pop("name", run_id.rsplit("-", 1)[0])
        run = RunRecord(
            run_id=run_id, name=name, manifest="", submitted_ns=at(at_s), host="h", pid=1, user=user, bound=bound
        )
        given = {"name": name, "task": "digits", "model": "tiny/vit"} | spec
        self.store.submit(run, [JobSpec.model_validate({"job_id": one} | given) for one in job_ids])

    def start(self, job_id: str, *nodes: NodeView, at_s: float = 0, why: str = "it was free") -> int:
        """An attempt starts."""
        return self.store.start_attempt(
            job_id,
            nodes=[one.node_id for one in nodes],
            accelerator=nodes[0].accelerator,
            now_ns=at(at_s),
            why=why,
        )

    def end(
        self,
        job_id: str,
        number: int,
        state: AttemptState,
        then: JobState,
        *,
        reason: str | None = None,
        at_s: float = 60,
        ready_s: float | None = None,
    ) -> None:
        """It ends."""
        ready_ns = 0 if ready_s is None else at(ready_s)
        self.store.end_attempt(
            job_id, number, state=state, reason=reason, then=then, now_ns=at(at_s), ready_ns=ready_ns
        )

    def beat(self, *nodes: NodeView, at_s: float = 0, name: str = "controller", trouble: str | None = None) -> None:
        """A controller says that it lives, and what it sees."""
        record = ControllerRecord(
            name=name,
            host="head",
            pid=7,
            address="head:6379",
            targets_url="http://127.0.0.1:1/",
            started_ns=at(-3600),
            beat_ns=at(at_s),
            trouble=trouble,
            cluster=ClusterView(nodes=nodes).to_json(),
        )
        self.store.note_controller(record)

    def progress(self, job_id: str, number: int, done: int, total: int, *, at_s: float, **more: Any) -> None:
        """An attempt that began to train at 0 s, and does nothing else, notes how far it is."""
        folder = self.home.attempt_folder(job_id, number)
        folder.mkdir(parents=True, exist_ok=True)
        write_progress(folder, progress(done, total, at_s=at_s, **more))

    def write_log(self, job_id: str, number: int, text: str, *, rank: int = 0) -> None:
        """What an attempt wrote."""
        path = log_path(self.home, job_id, attempt=number, rank=rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
