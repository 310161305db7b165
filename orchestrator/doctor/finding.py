"""What the doctor says of one thing it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``note`` (works, but know this) or ``missing`` (something will not work).
        remedy: the command or step that mends it; ``None`` when nothing is to be done.
    """

    what: str
    level: str
    found: str
    remedy: str | None = None


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether nothing is missing."""
    return all(finding.level != "missing" for finding in findings)
