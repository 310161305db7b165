"""What can be run and measured here, and the exact command that gets what is missing."""

from orchestrator.doctor.examine import PACKAGES, Machine, examine, installed_version
from orchestrator.doctor.finding import Finding, is_usable

__all__ = ["PACKAGES", "Finding", "Machine", "examine", "installed_version", "is_usable"]
