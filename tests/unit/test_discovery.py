"""The targets Prometheus is told: those there are when it asks, in its own format."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from orchestrator.cluster.port import AgentInfo
from orchestrator.monitoring.discovery import serve_targets, target_groups
from orchestrator.monitoring.scrape import http_config
from tests.prometheus_server import DIRECT, read_url
from workers.errors import InputError, UnreachableError
from workers.telemetry.agent_access import AgentAccess


def agent(node: str, metrics_url: str, accelerator: str = "H100") -> AgentInfo:
    return AgentInfo(
        node_id=f"id-{node}",
        node=node,
        socket="/run/agent.sock",
        metrics_url=metrics_url,
        simulated=True,
        accelerator=accelerator,
    )


def refusal(url: str, *, method: str = "GET") -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as refused, DIRECT.open(urllib.request.Request(url, method=method)):
        pass
    with refused.value as answer:
        return answer.code, answer.read().decode()


def test_a_cluster_that_cannot_be_asked_is_an_error_and_not_an_empty_list() -> None:
    def lost() -> tuple[AgentInfo, ...]:
        raise UnreachableError("the cluster does not answer. Start it.")

    with serve_targets(lost) as server:
        assert refusal(server.url) == (503, "the cluster does not answer. Start it.\n")


def test_only_the_targets_are_served_and_only_to_read() -> None:
    with serve_targets(tuple) as server:
        assert refusal(f"{server.url}/metrics") == (404, "the targets are at /\n")
        assert refusal(server.url, method="POST") == (405, "use GET\n")


def test_a_port_in_use_is_an_input_error() -> None:
    with (
        serve_targets(tuple) as server,
        pytest.raises(InputError, match=f"targets cannot be served on 127.0.0.1:{server.port}: .*Choose another port"),
    ):
        serve_targets(tuple, port=server.port)


def test_no_agents_is_a_list_too() -> None:
    with serve_targets(tuple) as server:
        assert read_url(server.url) == "[]"


def test_each_agent_is_a_target_with_its_node_and_accelerator() -> None:
    agents = [agent("node-b", "http://10.0.0.2:9101/metrics", "T4"), agent("node-a", "http://[::1]:9101/metrics")]
    assert target_groups(agents) == [
        {"targets": ["[::1]:9101"], "labels": {"node": "node-a", "accelerator": "H100"}},
        {"targets": ["10.0.0.2:9101"], "labels": {"node": "node-b", "accelerator": "T4"}},
    ]


def test_an_agent_behind_tls_is_scraped_over_tls() -> None:
    (group,) = target_groups([agent("node-a", "https://10.0.0.1:9101/metrics")])
    assert group == {
        "targets": ["10.0.0.1:9101"],
        "labels": {"node": "node-a", "accelerator": "H100", "__scheme__": "https"},
    }


def test_agents_are_asked_for_at_every_request() -> None:
    present = [agent("node-a", "http://127.0.0.1:1/metrics")]
    with serve_targets(lambda: present) as server:
        told = [json.loads(read_url(server.url))]
        present.append(agent("node-b", "http://127.0.0.1:2/metrics"))
        told.append(json.loads(read_url(server.url)))
        del present[0]
        told.append(json.loads(read_url(server.url)))
    assert [[group["labels"]["node"] for group in groups] for groups in told] == [
        ["node-a"],
        ["node-a", "node-b"],
        ["node-b"],
    ]


def test_prometheus_takes_the_answer_only_as_json() -> None:
    with serve_targets(tuple) as server, DIRECT.open(server.url, timeout=10) as response:
        assert response.headers["Content-Type"] == "application/json"


def test_the_configuration_that_follows_a_discovery_is_exactly_this() -> None:
    assert yaml.safe_load(http_config("http://head:9110/", "500ms", refresh="10s")) == {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "scrape_configs": [
            {
                "job_name": "wattledger",
                "honor_labels": True,
                "http_sd_configs": [{"url": "http://head:9110/", "refresh_interval": "10s"}],
            }
        ],
    }


def test_protected_agents_are_scraped_with_their_authority_and_their_password_file() -> None:
    access = AgentAccess(
        tls_cert=Path("/etc/agent.crt"),
        tls_key=Path("/etc/agent.key"),
        tls_ca=Path("/etc/ca.crt"),
        auth_user="prometheus",
        auth_password_file=Path("/etc/password"),
    )
    (job,) = yaml.safe_load(http_config("http://head:9110/", "1s", access=access))["scrape_configs"]
    assert job["tls_config"] == {"ca_file": "/etc/ca.crt"}
    assert job["basic_auth"] == {"username": "prometheus", "password_file": "/etc/password"}


@pytest.mark.parametrize(("interval", "refresh"), [("fast", "1s"), ("1s", "often")])
def test_a_configuration_with_a_wrong_duration_is_refused(interval: str, refresh: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        http_config("http://head:9110/", interval, refresh=refresh)


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration_and_the_answer(tmp_path: Path) -> None:
    (tmp_path / "http.yml").write_text(http_config("http://head:9110/", "1s"))
    command = ["promtool", "check", "config", str(tmp_path / "http.yml")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (said.returncode, said.stderr) == (0, "")
