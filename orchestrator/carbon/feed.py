"""What a source of hourly intensity over HTTP is to the rest: a zone and a UTC day in, the hours of that day out."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.carbon.hourly import NS_PER_HOUR, hourly_means
from workers.errors import InputError, UnreachableError
from workers.units import NS_PER_S

HOURS_PER_DAY = 24


@dataclass(frozen=True, kw_only=True)
class FeedDay:
    """The hours of one UTC day, as far as they are known.

    Attributes:
        g_per_kwh: hour since the epoch to gCO2e per kWh.
        provisional: those that are estimated or forecast.
    """

    g_per_kwh: Mapping[int, float]
    provisional: frozenset[int]


class Feed(Protocol):
    """A source of hourly intensity."""

    @property
    def name(self) -> str:
        """Its folder in the cache; two feeds with different figures have different names."""
        ...

    @property
    def title(self) -> str:
        """Who says so, and what kind of figure it is, for people."""
        ...

    def day(self, zone: str, day: int) -> FeedDay:
        """The hours of a zone on the UTC ``day`` (days since the epoch).

        Raises:
            UnreachableError: no answer, or not one of this source's.
            InputError: the source refuses: the key, the zone.
        """
        ...


def secret(environ: Mapping[str, str], name: str) -> str:
    """The secret that the variable ``name`` holds, or the file that ``name_FILE`` names; never shown to anyone.

    Raises:
        InputError: neither is set, or the file cannot be read.
    """
    if environ.get(name):
        return environ[name]
    path = environ.get(f"{name}_FILE")
    if not path:
        raise InputError(f"{name} is not set; put the key in it, or the path of a file that holds it in {name}_FILE")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file that {name}_FILE names cannot be read; check its path and permissions") from error


def edges(day: int) -> tuple[str, str]:
    """Start and end of a UTC day as every source takes them: ``2024-01-01T00:00Z``."""
    start = datetime.datetime.fromtimestamp(day * 86_400, datetime.UTC)
    form = "%Y-%m-%dT%H:%MZ"
    return start.strftime(form), (start + datetime.timedelta(days=1)).strftime(form)


def to_ns(text: str) -> int:
    """Nanoseconds since the epoch of a time with a zone.

    Raises:
        ValueError: it is not one.
    """
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return round(time.timestamp()) * NS_PER_S


def hours_of(day: int, points: Iterable[tuple[int, float, bool]]) -> FeedDay:
    """The hours of ``day`` from points (ns since the epoch, gCO2e per kWh, whether it is provisional).

    An hour with a provisional point is provisional. Points of other days, and figures that cannot be, are left out.
    """
    hours = range(day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY)
    own = [point for point in points if point[0] // NS_PER_HOUR in hours and is_figure(point[1])]
    return FeedDay(
        g_per_kwh=hourly_means((time_ns, figure) for time_ns, figure, _ in own),
        provisional=frozenset(time_ns // NS_PER_HOUR for time_ns, _, is_provisional in own if is_provisional),
    )


def is_figure(g_per_kwh: float) -> bool:
    """Whether it can be an intensity: a number of 0 or more."""
    return math.isfinite(g_per_kwh) and g_per_kwh >= 0


def rows_of(answer: Any, who: str) -> list[Any]:  # noqa: ANN401 (JSON of anyone's)
    """The list under ``data``, as all of these sources answer.

    Raises:
        UnreachableError: there is none.
    """
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise UnreachableError(f"{who} does not answer as {who} does: it sends no list of data")
    return rows
