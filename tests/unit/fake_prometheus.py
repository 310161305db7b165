"""A Prometheus server that answers instant queries over a range as the real one does, from samples it is given.

It does what the client needs: one selector with labels that are equal, a range in ms, left-open, a limit of samples,
and the error bodies. It has no other PromQL, no staleness, and no lookback.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field

import httpx

QUERY = re.compile(r'(?P<metric>\w+)\{(?P<labels>(?:\w+="(?:[^"\\]|\\.)*",?)+)\}\[(?P<ms>\d+)ms\]')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ENERGY = "wattledger_device_energy_joules_total"
LEASE = "wattledger_lease_info"


@dataclass
class FakePrometheus:
    """Has series and answers queries.

    Attributes:
        metric: the name of the counter that ``add`` and ``ramp`` give samples of.
        series: labels, the name among them, to ``[(seconds, text of the value)]``.
        asked: every form it was sent.
        max_samples: a query that would read more is refused, as ``--query.max-samples`` has it.
        sick: how many of the next requests are answered 503.
        headers: of the last request.
    """

    metric: str = ENERGY
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, str]]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    max_samples: int = 50_000_000
    sick: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)

    def add(
        self,
        device: str,
        *samples: tuple[float, float | str],
        instance: str = "node:9100",
        metric: str | None = None,
        **labels: str,
    ) -> None:
        """Have samples of a device's counter: (seconds, joules)."""
        told = {"__name__": metric or self.metric, "device": device, "instance": instance, **labels}
        self.series[tuple(told.items())] = [(time_s, str(value)) for time_s, value in samples]

    def ramp(
        self, device: str, *, start_s: float, end_s: float, watts: float, every_s: float = 1.0, **labels: str
    ) -> None:
        """A counter that grows evenly from 1,000 J."""
        count = int((end_s - start_s) / every_s) + 1
        self.add(device, *((start_s + i * every_s, 1_000 + watts * i * every_s) for i in range(count)), **labels)

    def lease(
        self, device: str, *, job_id: str, attempt: int, start_s: float, end_s: float, every_s: float = 1.0
    ) -> None:
        """An attempt held a device, and every scrape saw it."""
        count = int((end_s - start_s) / every_s) + 1
        samples = [(start_s + i * every_s, 1) for i in range(count)]
        self.add(device, *samples, metric=LEASE, job_id=job_id, attempt=str(attempt))

    def transport(self) -> httpx.MockTransport:
        """What a client is given instead of a network."""
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        form = dict(urllib.parse.parse_qsl(request.content.decode()))
        self.asked.append(form)
        self.headers = request.headers
        if self.sick:
            self.sick -= 1
            return httpx.Response(503, text="Service Unavailable")
        if (request.method, request.url.path) != ("POST", "/api/v1/query"):
            return httpx.Response(404, text="404 page not found")
        found = QUERY.fullmatch(form["query"])
        if found is None:
            return _error(400, "bad_data", "invalid parameter: parse error")
        wanted = {name: _unescaped(value) for name, value in LABEL.findall(found["labels"])}
        wanted["__name__"] = found["metric"]
        end_s, range_s = float(form["time"]), int(found["ms"]) / 1000
        result = [
            {"metric": dict(labels), "values": [[t, v] for t, v in samples if end_s - range_s < t <= end_s]}
            for labels, samples in self.series.items()
            if wanted.items() <= dict(labels).items()
        ]
        series = [one for one in result if one["values"]]
        if sum(len(one["values"]) for one in series) > self.max_samples:
            return _error(422, "execution", "query processing would load too many samples into memory")
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": series}})


def _error(status: int, kind: str, told: str) -> httpx.Response:
    return httpx.Response(status, json={"status": "error", "errorType": kind, "error": told})


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)


@dataclass
class Waits:
    """A clock that only waiting moves: tries of a client take no time of a test."""

    now_s: float = 0.0
    waited: list[float] = field(default_factory=list)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now_s += seconds
