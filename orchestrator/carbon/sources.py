"""The hourly intensity a job's manifest asks for, from wherever it names. What goes wrong is a reason, never an error.

Of a report, all jobs of one source and zone share what was read, and a source that failed once is not asked again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Mapping

from orchestrator.carbon.cache import CachedDay, recall_day, remember_day
from orchestrator.carbon.electricity_maps import TOKEN_VARIABLE, ElectricityMaps
from orchestrator.carbon.electricity_maps import URL as ELECTRICITY_MAPS_URL
from orchestrator.carbon.feed import HOURS_PER_DAY, Feed, FeedDay, secret
from orchestrator.carbon.hourly import HourlySeries
from orchestrator.carbon.http import Caller
from orchestrator.carbon.intensity import GREAT_BRITAIN, Intensity, intensity_of
from orchestrator.carbon.series_file import SeriesFile, is_file, read_series
from orchestrator.carbon.uk import URL as UK_URL
from orchestrator.carbon.uk import UkCarbonIntensity
from orchestrator.carbon.watttime import PASSWORD_VARIABLE, USER_VARIABLE, WattTime
from orchestrator.carbon.watttime import URL as WATTTIME_URL
from workers.contract import ZONE_PATTERN, Accounting
from workers.errors import InputError, WattledgerError
from workers.home import Home


class HourlySources:
    """Finds the hours that jobs need, for the length of one report.

    Args:
        home: the ledger: its cache, and the files of its runs.
        environ: where the keys are (``ELECTRICITYMAPS_TOKEN``, ``WATTTIME_USER``, ``WATTTIME_PASSWORD``, or ``…_FILE``
            for a file that holds one), and addresses in place of the sources' own (``ELECTRICITYMAPS_URL``,
            ``WATTTIME_URL``, ``UK_CARBON_URL``).
        caller: makes the requests.
        now_ns: ns since the epoch.
    """

    def __init__(
        self,
        home: Home,
        *,
        environ: Mapping[str, str] = os.environ,
        caller: Caller | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._home, self._environ, self._now_ns = home, environ, now_ns
        self._caller = caller or Caller()
        self._days: dict[tuple[str, str, int], FeedDay] = {}
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._files: dict[tuple[str, str], SeriesFile] = {}
        self._silent: dict[tuple[str, str], str] = {}

    def hourly(
        self, wanted: Accounting, region: Intensity, hours: Collection[int], *, run_id: str
    ) -> HourlySeries | None:
        """The series for a job that drew in ``hours``; ``None`` where its manifest wants the yearly figure."""
        if wanted.intensity == "yearly":
            return None
        try:
            if is_file(wanted.intensity):
                return self._file(run_id, wanted.intensity).series(_names(wanted, region))
            return self._of_feed(wanted, _zone(wanted, region), hours)
        except WattledgerError as error:
            told = " ".join(str(error).splitlines()).rstrip(".")
            return HourlySeries(source=wanted.intensity, g_per_kwh={}, trouble=told)

    def close(self) -> None:
        """Let go of the connections."""
        self._caller.close()

    def _file(self, run_id: str, name: str) -> SeriesFile:
        if (run_id, name) not in self._files:
            self._files[run_id, name] = read_series(self._home.series(run_id), name)
        return self._files[run_id, name]

    def _of_feed(self, wanted: Accounting, zone: str, hours: Collection[int]) -> HourlySeries:
        key = (wanted.intensity, wanted.signal)
        if key not in self._feeds:
            self._feeds[key] = self._open(wanted)
        feed = self._feeds[key]
        days = [self._day(feed, zone, day) for day in sorted({hour // HOURS_PER_DAY for hour in hours})]
        return HourlySeries(
            source=f"{feed.title}, {zone}",
            g_per_kwh={hour: figure for day in days for hour, figure in day.g_per_kwh.items()},
            provisional=frozenset().union(*(day.provisional for day in days)),
            trouble=self._silent.get((feed.name, zone)),
        )

    def _open(self, wanted: Accounting) -> Feed:
        if wanted.intensity == "electricitymaps":
            url = self._environ.get("ELECTRICITYMAPS_URL", ELECTRICITY_MAPS_URL)
            return ElectricityMaps(self._caller, token=secret(self._environ, TOKEN_VARIABLE), url=url)
        if wanted.intensity == "watttime":
            return WattTime(
                self._caller,
                user=secret(self._environ, USER_VARIABLE),
                password=secret(self._environ, PASSWORD_VARIABLE),
                signal=wanted.signal,
                url=self._environ.get("WATTTIME_URL", WATTTIME_URL),
            )
        return UkCarbonIntensity(self._caller, url=self._environ.get("UK_CARBON_URL", UK_URL))

    def _day(self, feed: Feed, zone: str, day: int) -> FeedDay:
        """A day from memory, else from the cache, else from the source, else what the cache has although it is old."""
        key = (feed.name, zone, day)
        if key in self._days:
            return self._days[key]
        kept = recall_day(self._home, feed.name, zone, day)
        if kept is None or not kept.is_final(day, self._now_ns()):
            kept = self._ask(feed, zone, day) or kept
        self._days[key] = kept.hours if kept else FeedDay(g_per_kwh={}, provisional=frozenset())
        return self._days[key]

    def _ask(self, feed: Feed, zone: str, day: int) -> CachedDay | None:
        if (feed.name, zone) in self._silent:
            return None
        try:
            asked = CachedDay(hours=feed.day(zone, day), asked_ns=self._now_ns())
        except WattledgerError as error:
            self._silent[feed.name, zone] = str(error).rstrip(".")
            return None
        remember_day(self._home, feed.name, zone, day, asked)
        return asked


def _names(wanted: Accounting, region: Intensity) -> list[str]:
    """What a file may call the job's region, the narrowest first."""
    country = intensity_of(region.country).region if region.country else None
    names = (wanted.zone, wanted.region, region.region, country, region.country)
    return list(dict.fromkeys(name for name in names if name))


def _zone(wanted: Accounting, region: Intensity) -> str:
    """The zone to ask for: as the manifest says, else the region's country.

    Raises:
        InputError: the source has no such zone, or none is named.
    """
    if wanted.intensity == "uk":
        return GREAT_BRITAIN
    zone = wanted.zone or (region.country if wanted.intensity == "electricitymaps" else None)
    if zone is None or not re.fullmatch(ZONE_PATTERN, zone):
        raise InputError(f"no zone of {wanted.intensity} is named; give accounting.zone")
    return zone
