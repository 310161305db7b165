"""A Prometheus server that answers instant queries over a range as the real one does, from samples it is given.

It does what the client needs: one selector by ``device``, a range in ms, left-open, and the error bodies. It has no
other PromQL, no staleness, and no lookback.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field

import httpx

QUERY = re.compile(r'(?P<metric>\w+)\{device="(?P<device>(?:[^"\\]|\\.)*)"\}\[(?P<ms>\d+)ms\]')


@dataclass
class FakePrometheus:
    """Series are ``(device, labels) -> [(seconds, text of the value)]``; ``asked`` is every form it was sent."""

    metric: str = "wattledger_device_energy_joules_total"
    series: dict[tuple[str, str], list[tuple[float, str]]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def add(self, device: str, *samples: tuple[float, float | str], instance: str = "node:9100") -> None:
        """Have samples of a device's counter: (seconds, joules)."""
        self.series[device, instance] = [(time_s, str(value)) for time_s, value in samples]

    def ramp(self, device: str, *, start_s: float, end_s: float, watts: float, every_s: float = 1.0) -> None:
        """A counter that grows evenly from 1,000 J."""
        count = int((end_s - start_s) / every_s) + 1
        self.add(device, *((start_s + i * every_s, 1_000 + watts * i * every_s) for i in range(count)))

    def transport(self) -> httpx.MockTransport:
        """What a client is given instead of a network."""
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        form = dict(urllib.parse.parse_qsl(request.content.decode()))
        self.asked.append(form)
        if (request.method, request.url.path) != ("POST", "/api/v1/query"):
            return httpx.Response(404, text="404 page not found")
        found = QUERY.fullmatch(form["query"])
        if found is None:
            body = {"status": "error", "errorType": "bad_data", "error": "invalid parameter: parse error"}
            return httpx.Response(400, json=body)
        device = re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), found["device"])
        end_s, range_s = float(form["time"]), int(found["ms"]) / 1000
        result = [
            {
                "metric": {"__name__": self.metric, "device": of, "instance": instance},
                "values": [[t, v] for t, v in samples if end_s - range_s < t <= end_s],
            }
            for (of, instance), samples in self.series.items()
            if found["metric"] == self.metric and of == device
        ]
        series = [one for one in result if one["values"]]
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": series}})
