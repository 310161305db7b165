"""An agent's snapshot as Prometheus metrics, over HTTP; the only module that imports ``prometheus_client``.

Nothing rather than stale or invented: a figure that is ``None`` has no sample, and a device whose last read failed
exports that it is down and its error count, nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from workers.contract import Method
from workers.telemetry import catalogue
from workers.telemetry.access import OPEN, Access
from workers.telemetry.catalogue import CATALOGUE, MetricInfo
from workers.telemetry.snapshot import DeviceStatus, NodeSnapshot
from workers.telemetry.web import WebServer, serve_app
from workers.units import MW_PER_W, mj_to_joules

Sample = tuple[MetricInfo, dict[str, str], float]
"""A metric of the catalogue, its labels, and the value in the metric's unit."""


class AgentCollector(Collector):
    """Renders a fresh snapshot at every scrape.

    Args:
        snapshot: called once per scrape, from the server's thread; must be quick and thread-safe.
    """

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """The families there can be, so that registering does not read the devices."""
        return [_family(metric) for metric in _AGENT_METRICS]

    def collect(self) -> Iterable[Metric]:
        """The families that have something to say, in the catalogue's order."""
        families = {metric.name: _family(metric) for metric in _AGENT_METRICS}
        for metric, labels, value in _samples(self._snapshot()):
            families[metric.name].add_sample(metric.name, labels, value)
        return [family for family in families.values() if family.samples]


_AGENT_METRICS = tuple(metric for metric in CATALOGUE.values() if metric.exported_by == "agent" and metric.exported)
_FAMILY_SUFFIX = {"counter": "_total", "info": "_info"}
"""What the client library puts behind a family's name by itself."""


def _family(metric: MetricInfo) -> Metric:
    name = metric.name.removesuffix(_FAMILY_SUFFIX.get(metric.kind, ""))
    return Metric(name, metric.help, metric.kind, metric.unit)


def _samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    for status in snapshot.devices:
        yield from _device_samples(snapshot.node, status)
    for name in snapshot.silent:
        yield catalogue.READ_ERRORS, {"node": snapshot.node, "device": name}, 1.0
    yield from _lease_samples(snapshot)
    yield from _job_samples(snapshot)
    yield catalogue.READ_SECONDS, {"node": snapshot.node}, snapshot.read_seconds
    yield catalogue.WRITE_ERRORS, {"node": snapshot.node}, float(snapshot.write_errors)


def _device_samples(node: str, status: DeviceStatus) -> Iterator[Sample]:
    device = status.device
    labels = {
        "node": node,
        "device": device.uuid,
        "model": device.model,
        "kind": device.kind,
        "method": device.method.value,
    }
    yield catalogue.READ_ERRORS, {"node": node, "device": device.uuid}, status.read_errors
    yield catalogue.DEVICE_UP, labels, float(status.up)
    if not status.up:
        return
    if status.energy_mj is not None:
        yield catalogue.DEVICE_ENERGY, labels, mj_to_joules(status.energy_mj)
    if status.power_mw is not None:
        yield catalogue.DEVICE_POWER, labels, status.power_mw / MW_PER_W
    if status.limit_mw is not None:
        yield catalogue.DEVICE_POWER_LIMIT, labels, status.limit_mw / MW_PER_W
    if status.utilization is not None:
        yield catalogue.DEVICE_UTILIZATION, labels, status.utilization


def _lease_samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    # A set: one attempt may hold a device through two leases, and a series must not be exported twice.
    holds = {
        (device, status.lease.job_id, str(status.lease.attempt), status.lease.phase or "")
        for status in snapshot.leases
        if status.open
        for device in status.lease.devices
    }
    for device, job_id, attempt, phase in sorted(holds):
        labels = {"node": snapshot.node, "device": device, "job_id": job_id, "attempt": attempt, "phase": str(phase)}
        yield catalogue.LEASE_INFO, labels, 1.0


def _job_samples(snapshot: NodeSnapshot) -> Iterator[Sample]:
    """Energy per attempt, closed leases included: a counter must not fall when a lease ends."""
    methods = {status.device.uuid: status.device.method for status in snapshot.devices}
    # Every attempt has its part of the host's own devices.
    hosts = {status.device.method for status in snapshot.devices if status.device.kind != "gpu"}
    energy_mj: defaultdict[tuple[str, int], int] = defaultdict(int)
    obtained: defaultdict[tuple[str, int], set[Method]] = defaultdict(set)
    for status in snapshot.leases:
        attempt = (status.lease.job_id, status.lease.attempt)
        energy_mj[attempt] += status.energy_mj
        obtained[attempt] |= hosts | {methods[device] for device in status.lease.devices if device in methods}
    for (job_id, number), total_mj in sorted(energy_mj.items()):
        weakest = max(obtained[job_id, number], key=lambda method: method.weakness, default="")
        labels = {"node": snapshot.node, "job_id": job_id, "attempt": str(number), "method": str(weakest)}
        yield catalogue.JOB_ENERGY, labels, mj_to_joules(total_mj)


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """A metrics server that is running; a context manager."""

    _server: WebServer

    @property
    def port(self) -> int:
        """Its TCP port; the real one when any was asked for."""
        return self._server.port

    @property
    def url(self) -> str:
        """Where the metrics are, as others reach them."""
        return f"{self._server.url}/metrics"

    def close(self) -> None:
        """Stop serving and free the port; a second call does nothing."""
        self._server.close()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(collector: Collector, *, listen: str = "127.0.0.1", port: int = 0, access: Access = OPEN) -> Exporter:
    """Serve ``collector`` alone (no process or interpreter metrics) from a thread of its own.

    Args:
        collector: what is asked at every scrape.
        listen: address or host name to bind; the default is reachable from this machine only.
        port: TCP port; 0 takes any that is free.
        access: who may scrape, and whether it is encrypted.

    Raises:
        InputError: the address or port cannot be bound, or the certificate cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    app = make_wsgi_app(registry)
    return Exporter(_server=serve_app(app, what="metrics", listen=listen, port=port, access=access))


def render(snapshot: NodeSnapshot) -> str:
    """``snapshot`` in Prometheus' text format, as a scrape would show it."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(lambda: snapshot))
    return generate_latest(registry).decode()
