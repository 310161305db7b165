"""What the queue shows of itself, from the ledger alone: no Ray, and no controller need be alive."""

from orchestrator.queue_view.controllers import ControllerView, controller_views
from orchestrator.queue_view.jobs import JobView, eta_s
from orchestrator.queue_view.logs import LogFile, LogFollower, LogPiece, find_log, last_lines, log_files, read_log
from orchestrator.queue_view.names import find_job, find_jobs
from orchestrator.queue_view.queue import QueueView, in_line, look
from orchestrator.queue_view.quotas import QuotaUse, quota_uses, uses_of
from orchestrator.queue_view.story import Explanation, explain
from orchestrator.queue_view.waiting import Need

__all__ = [
    "ControllerView",
    "Explanation",
    "JobView",
    "LogFile",
    "LogFollower",
    "LogPiece",
    "Need",
    "QueueView",
    "QuotaUse",
    "controller_views",
    "eta_s",
    "explain",
    "find_job",
    "find_jobs",
    "find_log",
    "in_line",
    "last_lines",
    "log_files",
    "look",
    "quota_uses",
    "read_log",
    "uses_of",
]
