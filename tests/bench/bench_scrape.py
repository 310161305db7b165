"""How long does a scrape of 8 devices and 16 leases take, and how much of it is the client library's?

    python -m tests.bench.bench_scrape [--rounds N] [--save]

Each round is one HTTP request over a new connection, as Prometheus makes it, to an agent's exporter over a real
``NodeMeter`` (which reads all devices at every scrape), and one to a bare ``prometheus_client`` server of gauges with
the same number of series and the same labels, which reads nothing. The aim is a median and a p99 under 5 ms.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.environment import RESULTS, heading
from workers.contract import Phase
from workers.telemetry.exporter import AgentCollector, render, serve
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.simulated import SimulatedMeter

DEVICES, LEASES = 8, 16
AIM_MS = 5.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times of one kind of request, ms, and the number of series each gave."""

    what: str
    series: int
    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p99_ms(self) -> float:
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(0.99 * len(self.times_ms)))]


def busy_node() -> NodeMeter:
    """Eight simulated boards, each held by two leases of this process."""
    node = NodeMeter(SimulatedMeter(("H100",) * DEVICES, node="bench", clock_ns=time.time_ns), node="bench")
    for number in range(LEASES):
        device = str(number % DEVICES)
        node.open(
            LeaseRequest(
                job_id=f"job-{number}", attempt=1, devices=(device,), pid=os.getpid(), cpus=1.0, phase=Phase.TRAIN
            )
        )
    return node


@contextmanager
def bare_server(text: str) -> Iterator[int]:
    """The client library alone over the series of ``text``; gives its port."""
    registry = CollectorRegistry()
    for family in text_string_to_metric_families(text):
        names = sorted(family.samples[0].labels)
        gauge = Gauge(f"bare_{family.name}", family.documentation, names, registry=registry)
        for sample in family.samples:
            gauge.labels(*(sample.labels[name] for name in names)).set(sample.value)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scrape(port: int) -> str:
    """The body of one scrape, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def series_in(text: str) -> int:
    return sum(not line.startswith("#") for line in text.splitlines())


def measure(rounds: int) -> tuple[Timing, Timing, Timing]:
    """The agent's scrape, the bare library's, and the agent's text without HTTP; rounds interleaved, so that what
    disturbs the machine disturbs all three."""
    node = busy_node()
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    with ExitStack() as stack:
        stack.callback(node.shutdown)
        exporter = stack.enter_context(serve(AgentCollector(node.snapshot)))
        bare_port = stack.enter_context(bare_server(render(node.snapshot())))
        asks = (lambda: scrape(exporter.port), lambda: scrape(bare_port), lambda: render(node.snapshot()))
        series = [series_in(ask()) for ask in asks]
        for _ in range(rounds):
            for ask, into in zip(asks, times, strict=True):
                started = time.perf_counter()
                ask()
                into.append(1000 * (time.perf_counter() - started))
    names = ("agent, over HTTP", "bare prometheus_client, over HTTP", "agent, text only")
    agent, bare, text = (
        Timing(what=what, series=count, times_ms=tuple(each))
        for what, count, each in zip(names, series, times, strict=True)
    )
    return agent, bare, text


def report(timings: Sequence[Timing]) -> str:
    """The table; the second row is what the ratio is to."""
    bare_ms = timings[1].median_ms
    lines = [
        f"scrape of {DEVICES} devices and {LEASES} leases, {len(timings[0].times_ms)} rounds; aim {AIM_MS:g} ms",
        f"{'':36}{'series':>8}{'median ms':>12}{'p99 ms':>10}{'x bare':>8}",
    ]
    lines += [
        f"{each.what:36}{each.series:>8}{each.median_ms:>12.3f}{each.p99_ms:>10.3f}{each.median_ms / bare_ms:>8.2f}"
        for each in timings
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500, help="requests of each kind (default 500)")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, help="folder to write scrape.txt to (results/)")
    options = parser.parse_args(arguments)
    about = {**heading(None), "truth": "the agent's simulated boards, in its own process"}
    text = f"{report(measure(options.rounds))}\n\n{json.dumps(about)}\n"
    print(text, end="")
    if options.save is not None:
        options.save.mkdir(exist_ok=True)
        (options.save / "scrape.txt").write_text(text)


if __name__ == "__main__":
    main()
