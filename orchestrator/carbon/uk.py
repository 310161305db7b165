"""The Carbon Intensity API of Great Britain's grid operator: half-hourly, national, without a key (CC BY 4.0)."""

from __future__ import annotations

from orchestrator.carbon.feed import FeedDay, edges, hours_of, rows_of, to_ns
from orchestrator.carbon.http import Caller
from workers.errors import UnreachableError

URL = "https://api.carbonintensity.org.uk"


class UkCarbonIntensity:
    """``/intensity/{from}/{to}``: ``actual`` where it is known, else ``forecast``, which is provisional."""

    name = "uk"
    title = "UK Carbon Intensity API, average"

    def __init__(self, caller: Caller, *, url: str = URL) -> None:
        self._caller, self._url = caller, url.rstrip("/")

    def day(self, zone: str, day: int) -> FeedDay:  # noqa: ARG002 (it knows one zone)
        """As ``Feed`` says, of Great Britain whatever the zone."""
        start, end = edges(day)
        rows = rows_of(self._caller.get(f"{self._url}/intensity/{start}/{end}"), "The UK Carbon Intensity API")
        points = []
        try:
            for row in rows:
                actual, forecast = row["intensity"]["actual"], row["intensity"]["forecast"]
                figure = forecast if actual is None else actual
                if figure is not None:
                    points.append((to_ns(row["from"]), float(figure), actual is None))
        except (KeyError, TypeError, ValueError) as error:
            told = f"The UK Carbon Intensity API answers with a row that cannot be read ({error!r})"
            raise UnreachableError(told) from error
        return hours_of(day, points)
