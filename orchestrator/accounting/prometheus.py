"""The witness: a device's counter as Prometheus scraped it. The head's only door of ``httpx``.

Raw samples are asked for and interpolated here. ``increase()`` and ``rate()`` extrapolate to the edges of their range,
which for a job of a few scrapes invents energy.
"""

from __future__ import annotations

import itertools
import math
import urllib.parse
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from workers.errors import UnreachableError
from workers.units import NS_PER_S

MARGIN_NS = 60 * NS_PER_S
"""How far beyond a span samples are looked for: four of Prometheus' default scrapes (15 s)."""
TOLERANCE_NS = 60 * NS_PER_S
"""Two samples further apart than this do not tell what the counter was in between."""
TIMEOUT_S = 5.0

Sample = tuple[int, float]
"""Time (ns since the epoch) and counter (J)."""


class PrometheusClient:
    """Asks one Prometheus server. Once it has not answered it is not asked again, so a report waits once, not per job.

    Args:
        url: its address, with the path prefix it serves under, if any.
        transport: how requests travel; tests give their own.
        timeout_s: how long to wait for an answer, s.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        # A proxy named in the environment is for the world outside, and knows no server of this machine.
        outside = not _is_loopback(self.url)
        # Nothing kept alive: a client that nobody closes holds no socket.
        once = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(transport=transport, timeout=timeout_s, trust_env=outside, limits=once)
        self._silent: str | None = None

    def counter(self, metric: str, device: str, start_ns: int, end_ns: int) -> list[Sample]:
        """Raw samples of a device's counter from a margin before ``start_ns`` to a margin after ``end_ns``, by time.

        Series of one device (its exporter moved to another port) are put together. A sample that is not a finite
        number is left out.

        Raises:
            UnreachableError: no answer, or not one of Prometheus'.
        """
        range_ms = (end_ns - start_ns + 2 * MARGIN_NS) // 1_000_000
        query = f'{metric}{{device="{_escaped(device)}"}}[{range_ms}ms]'
        series = self._query(query, end_ns + MARGIN_NS)
        found: dict[int, float] = {}
        try:
            for time_s, value in itertools.chain.from_iterable(one["values"] for one in series):
                if math.isfinite(float(value)):
                    found[round(time_s * 1000) * 1_000_000] = float(value)
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(f"series without samples ({error!r})") from error
        return sorted(found.items())

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, query: str, time_ns: int) -> Sequence[Mapping[str, Any]]:
        """The series of an instant query over a range; by POST, since a query may be longer than a URL."""
        answer = self._post({"query": query, "time": f"{time_ns / NS_PER_S:.3f}"})
        try:
            body = answer.json()
            if body["status"] != "success":
                raise UnreachableError(f"Prometheus at {self.url} refused a query: {body['error']}.")
            data = body["data"]
            if data["resultType"] != "matrix":
                raise self._strange(f"a {data['resultType']}, where raw samples were asked for")
            series: Sequence[Mapping[str, Any]] = data["result"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(f"status {answer.status_code} and {answer.text[:80]!r}") from error
        return series

    def _post(self, form: Mapping[str, str]) -> httpx.Response:
        if self._silent is not None:
            raise UnreachableError(self._silent)
        try:
            return self._http.post(f"{self.url}/api/v1/query", data=form)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._silent = (
                f"Prometheus at {self.url} does not answer ({str(error) or type(error).__name__}); "
                "check its address, or that it runs."
            )
            raise UnreachableError(self._silent) from error

    def _strange(self, what: str) -> UnreachableError:
        return UnreachableError(f"{self.url} does not answer as Prometheus does: {what}. Check the address.")


def energy_between(
    samples: Sequence[Sample], start_ns: int, end_ns: int, *, tolerance_ns: int = TOLERANCE_NS
) -> float | None:
    """Joules the counter grew by from ``start_ns`` to ``end_ns``, linear between the samples around each edge.

    A counter that fell was reset: what it shows after the fall is added to what it showed before.

    Args:
        samples: by time.
        start_ns: one edge, ns since the epoch.
        end_ns: the other, not earlier.
        tolerance_ns: how far apart the two samples around an edge may be.

    Returns:
        ``None`` where an edge has no sample on one side, or its two are too far apart.
    """
    grown = _without_resets(samples)
    at_start = _value_at(grown, start_ns, tolerance_ns)
    at_end = _value_at(grown, end_ns, tolerance_ns)
    return None if at_start is None or at_end is None else at_end - at_start


def _without_resets(samples: Sequence[Sample]) -> list[Sample]:
    lifted, offset = list(samples[:1]), 0.0
    for (_, before), (time_ns, value) in itertools.pairwise(samples):
        if value < before:
            offset += before
        lifted.append((time_ns, value + offset))
    return lifted


def _value_at(samples: Sequence[Sample], time_ns: int, tolerance_ns: int) -> float | None:
    for (earlier_ns, before), (later_ns, after) in itertools.pairwise(samples):
        if earlier_ns <= time_ns <= later_ns:
            if later_ns - earlier_ns > tolerance_ns:
                return None
            return before + (after - before) * (time_ns - earlier_ns) / (later_ns - earlier_ns)
    return None


def _is_loopback(url: str) -> bool:
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:  # not a URL, as the first request will say
        return False
    return host in ("localhost", "::1") or host.startswith("127.")


def _escaped(label: str) -> str:
    """A label's value as PromQL writes it between double quotes."""
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
