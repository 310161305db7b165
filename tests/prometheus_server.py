"""A real Prometheus server for tests: import the ``prometheus_server`` fixture, mark the test ``prometheus``."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil
import pytest

from orchestrator.monitoring.server import LocalPrometheus

T = TypeVar("T")

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens loopback addresses without any proxy the environment names."""


@pytest.fixture(scope="module")
def prometheus_server() -> Iterator[LocalPrometheus]:
    """A server that scrapes nothing yet, every 200 ms once it is given targets; one per test module."""
    with LocalPrometheus(interval="200ms") as server:
        yield server


def wait_until(condition: Callable[[], T], *, timeout_s: float = 20.0) -> T:
    """The first true value of ``condition``; the test fails when there is none in time."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {timeout_s} s; last value: {value!r}")
        pause.wait(0.05)
    return value


def settles_on(expected: T, read: Callable[[], T], *, timeout_s: float = 20.0) -> None:
    """``read`` comes to give ``expected``: on a busy machine one scrape may be missed, and its figures with it."""
    last: list[T] = []

    def reached() -> bool:
        last[:] = [read()]
        return last == [expected]

    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not reached() and time.monotonic() < deadline:
        pause.wait(0.05)
    assert last == [expected]


def read_url(url: str) -> str:
    """The body of a loopback URL."""
    with DIRECT.open(url, timeout=10) as response:
        return str(response.read().decode())


def ask(url: str, expr: str) -> list[dict[str, Any]]:
    """The result of an instant query now: a list of ``{"metric": labels, "value": [time, text]}``."""
    answer = json.loads(read_url(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"))
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def values(url: str, expr: str, *labels: str) -> dict[tuple[str, ...], float]:
    """An instant query as a table from the named labels to the value; fails when they do not tell series apart."""
    rows = [(tuple(row["metric"].get(label, "") for label in labels), float(row["value"][1])) for row in ask(url, expr)]
    table = dict(rows)
    assert len(table) == len(rows), f"{labels} do not tell the series of {expr} apart: {rows}"
    return table


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Addresses and TCP ports a process listens on."""
    found = process.net_connections("tcp")
    return {(item.laddr.ip, item.laddr.port) for item in found if item.status == psutil.CONN_LISTEN}


def servers_of(pid: int) -> list[psutil.Process]:
    """The Prometheus servers below a process."""
    return [child for child in psutil.Process(pid).children(recursive=True) if child.name() == "prometheus"]


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
