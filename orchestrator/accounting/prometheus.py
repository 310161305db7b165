"""Raw samples of a Prometheus server. The head's only door of ``httpx``.

``increase()`` and ``rate()`` are never asked for: they extrapolate to the edges of their range, which for a job of a
few scrapes invents energy. ``samples`` turns what is given here into joules.
"""

from __future__ import annotations

import json
import math
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestrator.accounting.samples import Sample, Series, put_together
from orchestrator.accounting.server_access import OPEN, ServerAccess
from workers.errors import UnreachableError
from workers.telemetry.access import is_loopback
from workers.units import NS_PER_S

if TYPE_CHECKING:  # it takes a tenth of a second, which commands that ask no server should not cost
    import httpx

MARGIN_NS = 60 * NS_PER_S
"""How far beyond a span samples are looked for: four of Prometheus' default scrapes (15 s)."""
CHUNK_NS = 6 * 3600 * NS_PER_S
"""The longest range one query asks for: at a scrape every 250 ms a series of 86,400 samples, some 3 MB, where a server
reads 50 million at most (``--query.max-samples``)."""
SHORTEST_NS = 60 * NS_PER_S
"""A range that a server calls too much is asked for in halves, down to this."""
TIMEOUT_S = 5.0
DEADLINE_S = 10.0
"""How long one query is tried, waits included; a server that restarts is back in a few seconds."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
_MS = 1_000_000
"""Nanoseconds in a millisecond."""
_TRANSIENT = frozenset({429, 502, 503, 504})
_TOO_MUCH = ("execution", "timeout")
"""Prometheus' error types for a query that reads too many samples, or takes too long."""


class _TooMuchError(UnreachableError):
    """The server would answer, were it asked for less at once."""


class PrometheusClient:
    """Asks one Prometheus server.

    What fails in passing is tried again. Once it has not answered by the deadline it is not asked again, so a report
    waits once, not per job.

    Args:
        url: its address, with the path prefix it serves under, if any.
        access: secrets and certificates.
        transport: how requests travel; tests give their own.
        timeout_s: how long to wait for an answer, s; ``deadline_s``: how long to go on trying.
        monotonic_s: the clock of the deadline; ``sleep_s``: waits between tries.

    Raises:
        InputError: a secret would travel in clear, or a certificate cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        access: ServerAccess = OPEN,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx  # noqa: PLC0415

        address = url.rstrip("/")
        access.check_exposure(address)
        self.url = _without_secrets(address)
        self._endpoint = f"{address}/api/v1/query"
        self._deadline_s, self._monotonic_s, self._sleep_s = deadline_s, monotonic_s, sleep_s
        self._http = httpx.Client(
            transport=transport,
            timeout=timeout_s,
            # A proxy named in the environment is for the world outside, and knows no server of this machine.
            trust_env=not _is_here(address),
            # Nothing kept alive: a client that nobody closes holds no socket.
            limits=httpx.Limits(max_keepalive_connections=0),
            auth=access.basic,
            headers={} if access.token is None else {"Authorization": f"Bearer {access.token}"},
            verify=access.verify(),
        )
        self._silent: str | None = None

    def counter(self, metric: str, device: str, start_ns: int, end_ns: int) -> list[Sample]:
        """Raw samples of a device's counter, its series put together, with a margin on both sides.

        Raises:
            UnreachableError: no answer, or not one of Prometheus'.
        """
        return put_together(self.series(metric, {"device": device}, start_ns, end_ns))

    def series(self, metric: str, labels: Mapping[str, str], start_ns: int, end_ns: int) -> tuple[Series, ...]:
        """Raw samples from a margin before ``start_ns`` to a margin after ``end_ns``, those that are finite numbers.

        However long the time, no query asks for more than a server gives.

        Args:
            metric: its name.
            labels: what the series must carry.
            start_ns: ns since the epoch, by the server's clock.
            end_ns: the same.

        Raises:
            UnreachableError: no answer, or not one of Prometheus'.
        """
        matchers = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        selector = f"{metric}{{{matchers}}}"
        found: dict[str, tuple[Mapping[str, str], dict[int, float]]] = {}
        # Whole milliseconds, which is what the server counts in: no sample falls between two ranges.
        first_ns = (start_ns - MARGIN_NS) // _MS * _MS
        last_ns = -(-(end_ns + MARGIN_NS) // _MS) * _MS
        for begin_ns in range(first_ns, last_ns, CHUNK_NS):
            for series in self._in_halves(selector, begin_ns, min(begin_ns + CHUNK_NS, last_ns)):
                self._take_in(series, found)
        return tuple(Series(labels=told, samples=tuple(sorted(kept.items()))) for told, kept in found.values())

    def _take_in(self, series: Mapping[str, Any], found: dict[str, tuple[Mapping[str, str], dict[int, float]]]) -> None:
        """Add a chunk of a series; its edges may be in two chunks."""
        try:
            labels = series["metric"]
            _, kept = found.setdefault(json.dumps(labels, sort_keys=True), (labels, {}))
            for time_s, value in series["values"]:
                if math.isfinite(float(value)):
                    kept[round(time_s * 1000) * _MS] = float(value)
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(f"series without samples ({error!r})") from error

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_halves(self, selector: str, begin_ns: int, end_ns: int) -> Iterator[Mapping[str, Any]]:
        """The series of one range, asked for in parts where the server finds it too much."""
        try:
            yield from self._query(f"{selector}[{(end_ns - begin_ns) // _MS}ms]", end_ns)
        except _TooMuchError:
            if end_ns - begin_ns <= SHORTEST_NS:
                raise
            middle_ns = (begin_ns + end_ns) // (2 * _MS) * _MS
            yield from self._in_halves(selector, begin_ns, middle_ns)
            yield from self._in_halves(selector, middle_ns, end_ns)

    def _query(self, query: str, time_ns: int) -> Sequence[Mapping[str, Any]]:
        """The series of an instant query over a range; by POST, since a query may be longer than a URL."""
        answer = self._post({"query": query, "time": f"{time_ns / NS_PER_S:.3f}"})
        try:
            body = answer.json()
            if body["status"] != "success":
                kind = _TooMuchError if body.get("errorType") in _TOO_MUCH else UnreachableError
                raise kind(f"Prometheus at {self.url} refused a query: {body['error']}.")
            data = body["data"]
            if data["resultType"] != "matrix":
                raise self._strange(f"a {data['resultType']}, where raw samples were asked for")
            series: Sequence[Mapping[str, Any]] = data["result"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(f"status {answer.status_code} and {answer.text[:80]!r}") from error
        return series

    def _post(self, form: Mapping[str, str]) -> httpx.Response:
        """An answer that is worth reading, within the deadline."""
        import httpx  # noqa: PLC0415

        if self._silent is not None:
            raise UnreachableError(self._silent)
        until_s, wait_s = self._monotonic_s() + self._deadline_s, FIRST_WAIT_S
        while True:
            answer: httpx.Response | None = None
            try:
                answer = self._http.post(self._endpoint, data=form)
                if answer.status_code not in _TRANSIENT or _says_why(answer):
                    return answer
                why = f"status {answer.status_code} and {answer.text[:80]!r}"
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
                raise self._fall_silent(str(error)) from error
            except httpx.HTTPError as error:
                why = str(error) or type(error).__name__
            if self._monotonic_s() + wait_s >= until_s:
                raise self._fall_silent(why)
            self._sleep_s(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _fall_silent(self, why: str) -> UnreachableError:
        self._silent = f"Prometheus at {self.url} does not answer ({why}); check its address, or that it runs."
        return UnreachableError(self._silent)

    def _strange(self, what: str) -> UnreachableError:
        return UnreachableError(f"{self.url} does not answer as Prometheus does: {what}. Check the address.")


def _says_why(answer: httpx.Response) -> bool:
    """Whether a failure is Prometheus' own about this very query: too slow, which asking again would not mend."""
    try:
        return bool(answer.json()["errorType"] in _TOO_MUCH)
    except (KeyError, TypeError, ValueError):
        return False


def _is_here(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        return is_loopback(urllib.parse.urlsplit(url).hostname or "")
    except ValueError:  # not a URL, as the first request will say
        return False


def _without_secrets(url: str) -> str:
    """The address as messages show it: a name and password that stand in it are left out."""
    head, at, rest = url.rpartition("@")
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}{rest}" if at and separator else url


def _escaped(label: str) -> str:
    """A label's value as PromQL writes it between double quotes."""
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
