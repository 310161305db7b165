"""A server on a real socket that answers as Electricity Maps, WattTime and the UK Carbon Intensity API do.

It has figures for every hour asked for, checks the key, and has mishaps in the order it is told: ``503``, ``torn``
(half of the JSON), ``slow`` (holds the answer until the server ends), ``429`` (with its ``retry_after``), ``html``. It
does not model zones that a key may not see, ranges that are too long, or tokens that run out.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "a-secret-token"
LOGIN = ("ada", "pass:word")
HOUR = datetime.timedelta(hours=1)


@dataclass
class IntensityServer:
    """What the server does.

    Attributes:
        mishaps: what goes wrong with the next requests, one each; ``ok`` is none.
        missing: hours of the day (0 to 23) without a figure; ``estimated``: those that are estimated, or forecast.
        retry_after: what it sends with a 429.
        asked: path and query of every request, in order.
    """

    mishaps: list[str] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)
    estimated: set[int] = field(default_factory=set)
    retry_after: str = "7"
    unit: str = "lbs_co2_per_mwh"
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, object]:
        """Status and JSON of a request that nothing befalls."""
        if path == "/v3/carbon-intensity/past-range":
            return self._electricity_maps(query) if headers.get("auth-token") == TOKEN else (401, {"error": "no"})
        if path == "/login":
            expected = base64.b64encode(":".join(LOGIN).encode()).decode()
            return (200, {"token": TOKEN}) if headers.get("authorization") == f"Basic {expected}" else (401, {})
        if path == "/v3/historical":
            return self._watttime(query) if headers.get("authorization") == f"Bearer {TOKEN}" else (401, {})
        if path.startswith("/intensity/"):
            _, _, start, end = path.split("/")
            return self._uk(start, end)
        return 404, {"error": "no such path"}

    def _hours(self, start: str, end: str) -> Iterator[datetime.datetime]:
        at, until = datetime.datetime.fromisoformat(start), datetime.datetime.fromisoformat(end)
        while at < until:
            if at.hour not in self.missing:
                yield at
            at += HOUR

    def _electricity_maps(self, query: dict[str, str]) -> tuple[int, object]:
        rows = [
            {
                "zone": query["zone"],
                "carbonIntensity": 100 + at.hour,
                "datetime": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "updatedAt": "2024-02-01T00:00:00.000Z",
                "emissionFactorType": "lifecycle",
                "isEstimated": at.hour in self.estimated,
                "estimationMethod": "TIME_SLICER_AVERAGE" if at.hour in self.estimated else None,
            }
            for at in self._hours(query["start"], query["end"])
        ]
        return 200, {"zone": query["zone"], "temporalGranularity": "hourly", "data": rows}

    def _watttime(self, query: dict[str, str]) -> tuple[int, object]:
        per_lb = {"co2_aoer": 1000.0, "co2_moer": 2000.0}[query["signal_type"]]
        rows = [
            {"point_time": (at + minutes).isoformat(), "value": per_lb, "version": "2024-01-01"}
            for at in self._hours(query["start"], query["end"])
            for minutes in (datetime.timedelta(minutes=5 * i) for i in range(12))
        ]
        meta = {"region": query["region"], "signal_type": query["signal_type"], "units": self.unit}
        return 200, {"data": rows, "meta": meta}

    def _uk(self, start: str, end: str) -> tuple[int, object]:
        half, form = HOUR / 2, "%Y-%m-%dT%H:%MZ"
        rows = [
            {
                "from": at.strftime(form),
                "to": (at + half).strftime(form),
                "intensity": {"forecast": 90, "actual": None if at.hour in self.estimated else 80, "index": "low"},
            }
            for hour in self._hours(start, end)
            for at in (hour, hour + half)
        ]
        # The real one begins with the half-hour that ends at the start.
        before = datetime.datetime.fromisoformat(start) - half
        first = {"from": before.strftime(form), "to": start, "intensity": {"forecast": 9, "actual": 9, "index": "low"}}
        return 200, {"data": [first, *rows]}


@contextlib.contextmanager
def serving(server: IntensityServer) -> Iterator[IntensityServer]:
    """Serve on a free port of the loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urllib.parse.urlsplit(self.path)
            path, query = urllib.parse.unquote(split.path), dict(urllib.parse.parse_qsl(split.query))
            server.asked.append((path, query))
            mishap = server.mishaps.pop(0) if server.mishaps else "ok"
            if mishap == "slow":
                server.released.wait(30)
                return
            if mishap in ("503", "429"):
                self._send(int(mishap), b"{}", retry_after=server.retry_after if mishap == "429" else None)
                return
            status, body = server.answer(path, query, {name.lower(): value for name, value in self.headers.items()})
            raw = b"<html>maintenance</html>" if mishap == "html" else json.dumps(body).encode()
            self._send(status, raw, cut=len(raw) // 2 if mishap == "torn" else None)

        def _send(self, status: int, raw: bytes, *, retry_after: str | None = None, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            if retry_after is not None:
                self.send_header("retry-after", retry_after)
            self.end_headers()
            self.wfile.write(raw[:cut])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        thread.join()
        http.server_close()
