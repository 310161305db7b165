"""What the queue shows of itself, from the ledger alone: no Ray, and no controller need be alive."""

from orchestrator.queue_view.logs import LogFile, LogFollower, LogPiece, find_log, last_lines, log_files, read_log
from orchestrator.queue_view.names import find_job, find_jobs
from orchestrator.queue_view.quotas import QuotaUse, quota_uses, uses_of

__all__ = [
    "LogFile",
    "LogFollower",
    "LogPiece",
    "QuotaUse",
    "find_job",
    "find_jobs",
    "find_log",
    "last_lines",
    "log_files",
    "quota_uses",
    "read_log",
    "uses_of",
]
