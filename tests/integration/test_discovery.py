"""A real Prometheus follows the discovery: agents that appear are scraped, those that leave are dropped, unedited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.cluster.port import AgentInfo
from orchestrator.monitoring.discovery import serve_targets
from orchestrator.monitoring.server import LocalPrometheus
from tests.certificates import self_signed
from tests.prometheus_server import ask, read_url, settles_on, values, wait_until
from workers.contract import Device, Method
from workers.errors import UnreachableError
from workers.telemetry.access import OPEN, Access
from workers.telemetry.agent_access import AgentAccess
from workers.telemetry.exporter import AgentCollector, serve
from workers.telemetry.snapshot import DeviceStatus, NodeSnapshot

pytestmark = pytest.mark.prometheus


class Site:
    """Agents that come and go, each with a real exporter; ``lost`` makes the cluster unreachable."""

    def __init__(self, stack: ExitStack, access: Access = OPEN) -> None:
        self._stack, self._access = stack, access
        self.present: dict[str, AgentInfo] = {}
        self.lost = False

    def join(self, node: str) -> str:
        """Start an agent of this name, in place of any other; gives the ``host:port`` it is scraped at."""
        exporter = self._stack.enter_context(serve(AgentCollector(lambda: snapshot(node)), access=self._access))
        self.present[node] = AgentInfo(
            node_id=node, node=node, socket="", metrics_url=exporter.url, simulated=True, accelerator="H100"
        )
        return f"127.0.0.1:{exporter.port}"

    def agents(self) -> tuple[AgentInfo, ...]:
        if self.lost:
            raise UnreachableError("the cluster does not answer. Start it.")
        return tuple(self.present.values())


def snapshot(node: str) -> NodeSnapshot:
    device = Device(uuid=f"GPU-{node}", index=0, model="H100", method=Method.SIMULATED)
    status = DeviceStatus(
        device=device, up=True, energy_mj=1_000, power_mw=100_000, limit_mw=None, utilization=None, read_errors=0
    )
    return NodeSnapshot(node=node, devices=(status,), leases=(), read_seconds=0.001)


@pytest.fixture(scope="module")
def followed() -> Iterator[tuple[Site, LocalPrometheus]]:
    """A server that follows a site of one agent; one per module, so each test names nodes of its own."""
    with ExitStack() as stack:
        site = Site(stack)
        site.join("node-0")
        discovery = stack.enter_context(serve_targets(site.agents))
        server = stack.enter_context(LocalPrometheus(discovery_url=f"{discovery.url}/", interval="200ms"))
        server.wait_for_targets()
        yield site, server


def up(server: LocalPrometheus, *nodes: str) -> dict[str, str]:
    """Of the named nodes, those that are up, and where they are scraped."""
    found = values(server.url, "up", "node", "instance")
    return {node: instance for (node, instance), is_up in found.items() if is_up and node in nodes}


def failures(server: LocalPrometheus) -> float:
    """Requests to the discovery that failed, by Prometheus' own count."""
    lines = read_url(f"{server.url}/metrics").splitlines()
    counted = [line for line in lines if line.startswith("prometheus_sd_http_failures_total")]
    assert counted
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def test_a_server_whose_discovery_is_gone_says_what_it_waits_for() -> None:
    with (
        LocalPrometheus(discovery_url="http://127.0.0.1:1/") as server,
        pytest.raises(UnreachableError, match=r"the targets' server at http://127\.0\.0\.1:1 does not answer"),
    ):
        server.wait_for_targets(timeout_s=0.1)


def test_agents_behind_tls_and_a_password_are_scraped_by_who_has_both(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    (tmp_path / "password").write_text("geheim\n")
    access = AgentAccess(
        tls_cert=cert, tls_key=key, tls_ca=cert, auth_user="prometheus", auth_password_file=tmp_path / "password"
    )
    with ExitStack() as stack:
        site = Site(stack, Access(cert=cert, key=key, user="prometheus", password="geheim"))
        site.join("secured")
        url = f"{stack.enter_context(serve_targets(site.agents)).url}/"
        stranger = stack.enter_context(LocalPrometheus(discovery_url=url, interval="200ms"))
        friend = stack.enter_context(LocalPrometheus(discovery_url=url, interval="200ms", access=access))
        friend.wait_for_targets()
        assert set(up(friend, "secured")) == {"secured"}
        told = wait_until(lambda: [t["lastError"] for t in targets(stranger) if t["lastError"]])
        assert "certificate" in told[0]


def targets(server: LocalPrometheus) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(read_url(f"{server.url}/api/v1/targets"))["data"]["activeTargets"]
    return found


def test_agents_that_come_move_and_go_are_followed_without_an_edit(followed: tuple[Site, LocalPrometheus]) -> None:
    site, server = followed
    config = (server.folder / "prometheus.yml").read_text()
    assert up(server, "late") == {}
    first = site.join("late")
    settles_on({"late": first}, lambda: up(server, "late"))
    second = site.join("late")
    assert second != first
    settles_on({"late": second}, lambda: up(server, "late"))
    del site.present["late"]
    settles_on({}, lambda: up(server, "late"))
    assert up(server, "node-0")
    assert (server.folder / "prometheus.yml").read_text() == config


def test_prometheus_goes_on_with_the_agents_it_knows_while_the_cluster_cannot_be_asked(
    followed: tuple[Site, LocalPrometheus],
) -> None:
    site, server = followed
    before = failures(server)
    site.lost = True
    wait_until(lambda: failures(server) >= before + 2)
    assert set(up(server, "node-0")) == {"node-0"}
    site.lost = False


def test_series_keep_their_own_node_and_get_the_accelerator(followed: tuple[Site, LocalPrometheus]) -> None:
    _, server = followed
    (power,) = wait_until(lambda: ask(server.url, 'wattledger_device_power_watts{node="node-0"}'))
    labels = {name: text for name, text in power["metric"].items() if name not in ("instance", "job", "__name__")}
    assert labels == {
        "node": "node-0",
        "accelerator": "H100",
        "device": "GPU-node-0",
        "model": "H100",
        "kind": "gpu",
        "method": "simulated",
    }
