"""Electricity Maps, API version 3: the average intensity of what a zone consumes, hour by hour, flows traced."""

from __future__ import annotations

from orchestrator.carbon.feed import FeedDay, edges, hours_of, rows_of, to_ns
from orchestrator.carbon.http import Caller
from workers.errors import UnreachableError

URL = "https://api.electricitymaps.com"
TOKEN_VARIABLE = "ELECTRICITYMAPS_TOKEN"  # noqa: S105 (the name of a variable)


class ElectricityMaps:
    """``/v3/carbon-intensity/past-range``, with life-cycle emission factors, its default."""

    name = "electricitymaps"
    title = "Electricity Maps, average, life cycle"

    def __init__(self, caller: Caller, *, token: str, url: str = URL) -> None:
        self._caller, self._token, self._url = caller, token, url.rstrip("/")

    def day(self, zone: str, day: int) -> FeedDay:
        """As ``Feed`` says; an hour it estimated is provisional."""
        start, end = edges(day)
        answer = self._caller.get(
            f"{self._url}/v3/carbon-intensity/past-range",
            params={"zone": zone, "start": start, "end": end, "temporalGranularity": "hourly"},
            headers={"auth-token": self._token},
        )
        rows = rows_of(answer, "Electricity Maps")
        try:
            return hours_of(
                day,
                (
                    (to_ns(row["datetime"]), float(row["carbonIntensity"]), bool(row.get("isEstimated")))
                    for row in rows
                    if row["carbonIntensity"] is not None
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnreachableError(f"Electricity Maps answers with a row that cannot be read ({error!r})") from error
