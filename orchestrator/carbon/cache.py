"""Hours that were asked for over HTTP, kept in the ledger: one JSON file for each source, zone and UTC day.

What was is not asked again: an hour that has passed and is final does not change. A day with hours missing or
provisional is asked for again after an hour, until it is so old that nothing more will come.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.carbon.feed import HOURS_PER_DAY, FeedDay, is_figure
from workers.home import Home
from workers.units import NS_PER_S

AGAIN_AFTER_NS = 3600 * NS_PER_S
SETTLED_AFTER_DAYS = 30
"""After so many days a source has corrected what it would correct."""


@dataclass(frozen=True, kw_only=True)
class CachedDay:
    """A day as it was when it was asked for.

    Attributes:
        asked_ns: when that was, ns since the epoch.
    """

    hours: FeedDay
    asked_ns: int

    def is_final(self, day: int, now_ns: int) -> bool:
        """Whether asking again is no use, at least not yet."""
        settled_ns = (day + 1 + SETTLED_AFTER_DAYS) * 86_400 * NS_PER_S
        whole = len(self.hours.g_per_kwh) == HOURS_PER_DAY and not self.hours.provisional
        return whole or self.asked_ns >= settled_ns or now_ns - self.asked_ns < AGAIN_AFTER_NS


def recall_day(home: Home, feed: str, zone: str, day: int) -> CachedDay | None:
    """What is kept of a day; ``None`` where nothing is, or nothing that can be read."""
    try:
        kept = json.loads(_path(home, feed, zone, day).read_text(encoding="utf-8"))
        figures = {int(hour): float(figure) for hour, figure in kept["g_per_kwh"].items()}
        hours = FeedDay(g_per_kwh=figures, provisional=frozenset(map(int, kept["provisional"])))
        return CachedDay(hours=hours, asked_ns=int(kept["asked_ns"])) if all(map(is_figure, figures.values())) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember_day(home: Home, feed: str, zone: str, day: int, cached: CachedDay) -> None:
    """Keep a day; readers see the file whole or not at all. A ledger that cannot be written is only read."""
    kept = {
        "asked_ns": cached.asked_ns,
        "g_per_kwh": {str(hour): figure for hour, figure in sorted(cached.hours.g_per_kwh.items())},
        "provisional": sorted(cached.hours.provisional),
    }
    path = _path(home, feed, zone, day)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_text(json.dumps(kept), encoding="utf-8")
        hidden.replace(path)


def _path(home: Home, feed: str, zone: str, day: int) -> Path:
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    return home.carbon / "hours" / feed / zone / f"{date.isoformat()}.json"
