"""Whether a controller sees to the queue: by its heartbeat in the ledger, since a dead one cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.custody import controller_name
from orchestrator.lifecycle import JobRecord
from orchestrator.report.figures import format_duration, format_time
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import ControllerRecord
from workers.units import NS_PER_S

QUIET_NS = 15 * NS_PER_S
"""Without a heartbeat for so long a controller is taken for dead. A live one beats every second, but a node that does
not answer can hold it up for some."""
REMEDY = "start one: wattledger up"
NOT_RUNNING = f"not running; {REMEDY}"


@dataclass(frozen=True, kw_only=True)
class ControllerView:
    """A controller as its last heartbeat tells; ``is_alive``: that was just now."""

    record: ControllerRecord
    is_alive: bool

    @property
    def cluster(self) -> ClusterView:
        """What it saw last."""
        return ClusterView.from_json(self.record.cluster)

    def sentence(self, now_ns: int) -> str:
        """How it is, for people."""
        record = self.record
        if not self.is_alive:
            ago = format_duration((now_ns - record.beat_ns) / NS_PER_S)
            remedy = f"; {REMEDY}" if record.name == controller_name() else ""
            return f"not running: last heard of {ago} ago, on {record.host}{remedy}"
        trouble = f", in trouble: {record.trouble}" if record.trouble else ""
        return f"runs on {record.host} since {format_time(record.started_ns)}{trouble}"

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; times in ns since the epoch, UTC."""
        record = self.record
        return {
            "name": record.name,
            "is_alive": self.is_alive,
            "host": record.host,
            "pid": record.pid,
            "address": record.address,
            "targets_url": record.targets_url,
            "started_ns": record.started_ns,
            "beat_ns": record.beat_ns,
            "trouble": record.trouble,
        }


def controller_views(records: Sequence[ControllerRecord], *, now_ns: int) -> tuple[ControllerView, ...]:
    """Each that ever said that it lives and did not take leave."""
    return tuple(ControllerView(record=one, is_alive=now_ns - one.beat_ns < QUIET_NS) for one in records)


def controller_of(job: JobRecord, bound: frozenset[str], views: Sequence[ControllerView]) -> ControllerView | None:
    """The one that sees to a job: of its run, where that is ``bound`` to the command that submitted it; else of all."""
    name = controller_name(job.run_id if job.run_id in bound else None)
    return next((view for view in views if view.record.name == name), None)
