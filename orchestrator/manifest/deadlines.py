"""What is wrong with a manifest's deadlines: a day that no calendar has, or one that is over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from orchestrator.manifest.fields import Finding
from orchestrator.manifest.model import places
from workers.contract import DEADLINE_PATTERN
from workers.units import NS_PER_S

_KEY = "schedule.deadline"


def deadline_ns(text: str) -> int:
    """A job's deadline in ns since the epoch, exact.

    Raises:
        ValueError: no such day, time or offset.
    """
    return int(datetime.fromisoformat(text).timestamp()) * NS_PER_S


def deadline_findings(data: Mapping[str, object], now_ns: int | None) -> Iterator[Finding]:
    """Deadlines that cannot be met by anything that is submitted now; ``None``: whatever the time is."""
    for path, text in places(data, _KEY):
        if not isinstance(text, str) or not re.fullmatch(DEADLINE_PATTERN, text):
            continue  # its form is told elsewhere
        try:
            time_ns = deadline_ns(text)
        except (ValueError, OverflowError) as error:
            yield Finding(path, f"{_KEY}: {text} is no time: {error}; write it as 2026-12-01T18:00:00Z")
            continue
        if now_ns is not None and time_ns <= now_ns:
            now = datetime.fromtimestamp(now_ns // NS_PER_S, UTC)
            yield Finding(path, f"{_KEY}: {text} is in the past; it is {now:%Y-%m-%dT%H:%M:%SZ}")
