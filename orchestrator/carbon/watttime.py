"""WattTime, API version 3, and servers that speak like it: average (AOER) or marginal (MOER) emissions of a region.

The marginal figure is that of the plants which answer to a change in load. It says what shifting a job saves, not what
the electricity of a job emitted; which of the two a figure is stands in its source.
"""

from __future__ import annotations

from typing import Literal

from orchestrator.carbon.feed import FeedDay, edges, hours_of, rows_of, to_ns
from orchestrator.carbon.http import Caller
from workers.errors import UnreachableError

URL = "https://api.watttime.org"
USER_VARIABLE = "WATTTIME_USER"
PASSWORD_VARIABLE = "WATTTIME_PASSWORD"  # noqa: S105 (the name of a variable)

G_PER_KWH_OF_LB_PER_MWH = 0.45359237
"""A pound is 453.59237 g by definition, and a megawatt-hour 1,000 kWh."""
SIGNALS = {"average": "co2_aoer", "marginal": "co2_moer"}


class WattTime:
    """``/login`` for a token, then ``/v3/historical``."""

    def __init__(
        self, caller: Caller, *, user: str, password: str, signal: Literal["average", "marginal"], url: str = URL
    ) -> None:
        self._caller, self._login, self._url = caller, (user, password), url.rstrip("/")
        self._signal = SIGNALS[signal]
        self._token: str | None = None
        self.name = f"watttime-{self._signal}"
        self.title = f"WattTime, {signal} ({self._signal})"

    def day(self, zone: str, day: int) -> FeedDay:
        """As ``Feed`` says; nothing it answers is provisional."""
        start, end = edges(day)
        answer = self._caller.get(
            f"{self._url}/v3/historical",
            params={"region": zone, "start": start, "end": end, "signal_type": self._signal},
            headers={"authorization": f"Bearer {self._signed_in()}"},
        )
        rows = rows_of(answer, "WattTime")
        try:
            unit = answer["meta"]["units"]  # type: ignore[index]  # what is not there is caught
            if unit != "lbs_co2_per_mwh":
                raise UnreachableError(f"WattTime answers in {unit}, where lbs_co2_per_mwh were expected")
            return hours_of(
                day,
                (
                    (to_ns(row["point_time"]), float(row["value"]) * G_PER_KWH_OF_LB_PER_MWH, False)
                    for row in rows
                    if row["value"] is not None
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnreachableError(f"WattTime answers with a row that cannot be read ({error!r})") from error

    def _signed_in(self) -> str:
        """The token; it lasts 30 minutes, longer than a report asks for."""
        if self._token is None:
            answer = self._caller.get(f"{self._url}/login", login=self._login)
            token = answer.get("token") if isinstance(answer, dict) else None
            if not isinstance(token, str):
                raise UnreachableError("WattTime does not answer as WattTime does: it sends no token")
            self._token = token
        return self._token
