"""A real Prometheus server scrapes a real exporter, and every query of the dashboard finds its data there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from orchestrator.monitoring.dashboard import build_dashboard, queries
from orchestrator.monitoring.server import LocalPrometheus
from tests.prometheus_server import ask, listening, prometheus_server, servers_of, settles_on, values, wait_until
from workers.contract import Device, Lease, Method, Phase
from workers.telemetry.exporter import AgentCollector, Exporter, serve
from workers.telemetry.snapshot import DeviceStatus, LeaseStatus, NodeSnapshot

pytestmark = pytest.mark.prometheus

__all__ = ["prometheus_server"]

POWER_MW = {"SIM-shared": 100_000, "SIM-own": 60_000, "SIM-idle": 20_500}
HOLDERS = {"job-1": ("SIM-shared", "SIM-own"), "job-2": ("SIM-shared",)}
QUERIES = queries(build_dashboard())
SUBSTITUTES = {"$node": ".*", "$job": ".*", "$__range": "30s", "$__rate_interval": "2s"}


@dataclass
class Node:
    """Three devices drawing constant power; two jobs, which share one device. ``down`` devices cannot be read."""

    started_s: float = field(default_factory=time.monotonic)
    down: set[str] = field(default_factory=set)

    def snapshot(self) -> NodeSnapshot:
        elapsed_s = time.monotonic() - self.started_s
        return NodeSnapshot(
            node="node-1",
            devices=tuple(self._device(index, uuid, elapsed_s) for index, uuid in enumerate(POWER_MW)),
            leases=tuple(self._lease(job_id, elapsed_s) for job_id in HOLDERS),
            read_seconds=0.001,
        )

    def _device(self, index: int, uuid: str, elapsed_s: float) -> DeviceStatus:
        up = uuid not in self.down
        return DeviceStatus(
            device=Device(uuid=uuid, index=index, model="H100", method=Method.SIMULATED),
            up=up,
            energy_mj=int(POWER_MW[uuid] * elapsed_s),
            power_mw=POWER_MW[uuid],
            limit_mw=200_000,
            utilization=0.5,
            read_errors=0 if up else 1,
        )

    def _lease(self, job_id: str, elapsed_s: float) -> LeaseStatus:
        devices = HOLDERS[job_id]
        booked_mw = sum(POWER_MW[uuid] // (2 if uuid == "SIM-shared" else 1) for uuid in devices)
        lease = Lease(
            lease_id=job_id,
            job_id=job_id,
            attempt=1,
            devices=devices,
            pid=1,
            cpus=1.0,
            opened_ns=0,
            phase=Phase.TRAIN if job_id == "job-1" else None,
        )
        return LeaseStatus(lease=lease, energy_mj=int(booked_mw * elapsed_s), open=True)


@dataclass(frozen=True)
class Scraped:
    node: Node
    exporter: Exporter
    url: str


@pytest.fixture(scope="module")
def scraped(prometheus_server: LocalPrometheus) -> Iterator[Scraped]:
    """A node that Prometheus has scraped several times."""
    node = Node()
    with serve(AgentCollector(node.snapshot)) as exporter:
        prometheus_server.set_targets([f"127.0.0.1:{exporter.port}"])
        prometheus_server.wait_for_targets()
        url = prometheus_server.url
        wait_until(lambda: ask(url, "min(count_over_time(wattledger_device_energy_joules_total[30s])) >= 5"))
        yield Scraped(node, exporter, url)


def substituted(expr: str) -> str:
    """A dashboard query as Grafana would send it with every choice on All."""
    for variable, value in SUBSTITUTES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr


def panel_query(title: str) -> str:
    return next(substituted(expr) for panel, expr in QUERIES if panel == title)


@pytest.mark.parametrize(("title", "expr"), QUERIES, ids=[re.sub(r"\W+", "-", title) for title, _ in QUERIES])
def test_every_query_of_the_dashboard_finds_data(scraped: Scraped, title: str, expr: str) -> None:
    assert wait_until(lambda: ask(scraped.url, substituted(expr)))


def test_power_of_a_shared_device_is_split_between_its_jobs(scraped: Scraped) -> None:
    expected = {("job-1", "train", "simulated"): 110.0, ("job-2", "", "simulated"): 50.0}
    query = panel_query("Power per job")
    settles_on(expected, lambda: values(scraped.url, query, "job_id", "phase", "method"))


def test_power_of_jobs_and_of_idle_devices_is_all_the_power_there_is(scraped: Scraped) -> None:
    sums = {title: f"sum({panel_query(title)})" for title in ("Power per job", "Power no job holds", "Power now")}
    expected = {"Power per job": 160.0, "Power no job holds": 20.5, "Power now": 180.5}
    settles_on(expected, lambda: {title: values(scraped.url, query).get((), 0.0) for title, query in sums.items()})


def test_choosing_one_job_leaves_the_split_of_its_devices_alone(scraped: Scraped) -> None:
    chosen = panel_query("Power per job").replace('job_id=~".*"', 'job_id=~"job-2"')
    settles_on({("job-2",): 50.0}, lambda: values(scraped.url, chosen, "job_id"))


def test_stored_counters_are_whole_millijoules_that_only_rise(scraped: Scraped) -> None:
    (row,) = ask(scraped.url, 'wattledger_device_energy_joules_total{device="SIM-own"}[10s]')
    joules = [float(text) for _, text in row["values"]]
    assert joules == sorted(set(joules))
    assert [round(figure * 1000) / 1000 for figure in joules] == joules


def test_nothing_listens_beyond_the_loopback_interface(scraped: Scraped) -> None:
    own = psutil.Process()
    port = int(scraped.url.rpartition(":")[2])
    assert {("127.0.0.1", port)} in [listening(server) for server in servers_of(own.pid)]
    assert {address for address, port in listening(own) if port == scraped.exporter.port} == {"127.0.0.1"}


def test_figures_of_a_device_that_goes_down_disappear_and_come_back(scraped: Scraped) -> None:
    alive = [("SIM-idle",), ("SIM-own",), ("SIM-shared",)]
    power, up = panel_query("Power and power limit per device"), panel_query("Devices that can be read")
    scraped.node.down.add("SIM-idle")
    settles_on(dict(zip(alive, (0.0, 1.0, 1.0), strict=True)), lambda: values(scraped.url, up, "device"))
    settles_on(alive[1:], lambda: sorted(values(scraped.url, power, "device")))
    scraped.node.down.clear()
    settles_on(alive, lambda: sorted(values(scraped.url, power, "device")))
