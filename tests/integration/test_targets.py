"""The discovery on a real Ray cluster, followed by a real Prometheus, while a node joins and leaves."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.cluster.local import LocalCluster, LocalNode, local_cluster, local_node
from orchestrator.monitoring.server import LocalPrometheus
from orchestrator.store import Store
from tests.certificates import self_signed
from tests.clusters import processes_with, quick_manifest, start, wait_until, wattledger
from tests.prometheus_server import read_url, values
from workers.telemetry.agent_access import AgentAccess

pytestmark = [pytest.mark.cluster, pytest.mark.prometheus]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head and one simulated H100."""
    with local_cluster([LocalNode(accelerator="H100", board_uuid=None)], say=lambda _: None) as made:
        yield made


@pytest.fixture
def raise_on(cluster: LocalCluster) -> Iterator[Callable[..., str]]:
    """``wattledger up`` of a ledger, which gives where it tells the targets; taken down after the test."""
    homes: list[Path] = []

    def raise_(home: Path, *options: str) -> str:
        homes.append(home)
        told = wattledger("up", "--address", cluster.address, "--json", *options, "--home", str(home))
        assert told.returncode == 0, told.stderr
        return str(json.loads(told.stdout)["targets_url"])

    yield raise_
    for home in dict.fromkeys(homes):
        assert wattledger("down", "--home", str(home)).returncode == 0


def accelerators(url: str) -> list[str]:
    return sorted(group["labels"]["accelerator"] for group in json.loads(read_url(url)))


def known(server: LocalPrometheus) -> list[str]:
    """Accelerators of all targets, up or not."""
    return sorted(name for (name,) in values(server.url, "up", "accelerator"))


def scraped(server: LocalPrometheus) -> list[str]:
    """Accelerators of the targets that are up."""
    return sorted(name for (name,), is_up in values(server.url, "up", "accelerator").items() if is_up)


def test_nodes_that_join_and_leave_are_followed_and_their_agents_started_and_ended(
    cluster: LocalCluster, raise_on: Callable[..., str], tmp_path: Path
) -> None:
    url = raise_on(tmp_path / "ledger")
    assert accelerators(url) == ["H100"]
    with LocalPrometheus(discovery_url=url, interval="500ms") as server, ExitStack() as joined:
        server.wait_for_targets()
        late = LocalNode(accelerator="T4", board_uuid=None)
        joined.enter_context(local_node(cluster.address, late, log=tmp_path / "late.log"))
        wait_until(lambda: scraped(server) == ["H100", "T4"], what="the node that joined to be scraped")
        (group,) = [group for group in json.loads(read_url(url)) if group["labels"]["accelerator"] == "T4"]
        metrics = read_url(f"http://{group['targets'][0]}/metrics")
        assert f'node="{group["labels"]["node"]}"' in metrics
        joined.close()
        wait_until(lambda: accelerators(url) == ["H100"], what="Ray to know that the node left")
        wait_until(lambda: known(server) == ["H100"], what="the node that left to be dropped")
        wait_until(lambda: not processes_with(group["labels"]["node"]), what="its agent to leave")


def test_a_node_whose_agent_does_not_start_is_told_once_and_holds_up_no_other(
    cluster: LocalCluster, raise_on: Callable[..., str], tmp_path: Path
) -> None:
    home = tmp_path / "ledger"
    url = raise_on(home)
    strange = LocalNode(accelerator="B200", board_uuid=None)
    with local_node(cluster.address, strange, log=tmp_path / "strange.log"):

        def has_said_why() -> bool:
            assert accelerators(url) == ["H100"]
            return "B200" in agent_logs(home)

        wait_until(has_said_why, what="the agent to say why it does not start")
        for _ in range(10):
            assert accelerators(url) == ["H100"]
    said = (home / "run" / "controller.log").read_text()
    assert "did not start: unknown simulated accelerator 'B200'" in said
    assert said.count("did not start") == 1


def agent_logs(home: Path) -> str:
    return "".join(path.read_text() for path in home.glob("run/agent-*.log"))


@pytest.mark.heavy
def test_a_job_that_waits_starts_on_a_node_that_joins(
    cluster: LocalCluster, raise_on: Callable[..., str], tmp_path: Path
) -> None:
    home = tmp_path / "ledger"
    raise_on(home)
    manifest = quick_manifest(tmp_path, steps=4000, more="seeds: [0, 1]")
    running = start("run", str(manifest), "--home", str(home))
    try:
        wait_until(lambda: len(working(home)) == 1, what="the first job to run")
        late = LocalNode(accelerator="H100", board_uuid=None)
        with local_node(cluster.address, late, log=tmp_path / "late.log"):
            wait_until(lambda: len(working(home)) == 2, what="the second job to run beside it")
            with contextlib.closing(Store(home / "state.db")) as store:
                jobs = store.jobs()
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert [job.state.value for job in jobs] == ["running", "running"]
    assert len({job.attempts[0].nodes for job in jobs}) == 2
    assert running.returncode == 130, err


def working(home: Path) -> list[Path]:
    """Attempts that make progress."""
    return list(home.glob("artifacts/*/attempt-1/progress.json"))


def test_targets_are_listed_for_people_and_for_programs_and_agents_listen_where_they_are_told(
    cluster: LocalCluster, raise_on: Callable[..., str], tmp_path: Path
) -> None:
    nobody = wattledger("targets", "--home", str(tmp_path))
    assert nobody.returncode == 2
    url = raise_on(tmp_path / "narrow")
    listed = wattledger("targets", "--home", str(tmp_path / "narrow"), "--json")
    assert listed.returncode == 0, listed.stderr
    (group,) = json.loads(listed.stdout)
    assert json.loads(read_url(url)) == [group]
    table = wattledger("targets", "--home", str(tmp_path / "narrow"))
    assert f"http://{group['targets'][0]}/metrics" in table.stdout
    assert "H100 (simulated)" in table.stdout
    assert "its own host alone" in table.stdout
    assert url in table.stdout
    (group,) = json.loads(read_url(raise_on(tmp_path / "wide", "--agent-listen", "0.0.0.0")))
    assert group["targets"][0].rpartition(":")[0] == cluster.address.rpartition(":")[0]
    assert "wattledger_device_up" in read_url(f"http://{group['targets'][0]}/metrics")


def test_agents_that_ray_starts_serve_over_tls_to_who_knows_the_password_and_show_it_nowhere(
    cluster: LocalCluster, raise_on: Callable[..., str], tmp_path: Path
) -> None:
    cert, _ = self_signed(tmp_path)
    (tmp_path / "password").write_text("geheim-123\n")
    access = tmp_path / "access.toml"
    access.write_text(
        f'tls_cert = "{cert.name}"\ntls_key = "agent.key"\ntls_ca = "{cert.name}"\n'
        'auth_user = "prometheus"\nauth_password_file = "password"\n'
    )
    url = raise_on(tmp_path / "secured", "--agent-access", str(access))
    (group,) = json.loads(read_url(url))
    assert group["labels"]["__scheme__"] == "https"
    with LocalPrometheus(discovery_url=url, interval="500ms", access=AgentAccess.read(access)) as server:
        server.wait_for_targets()
        assert scraped(server) == ["H100"]
    assert processes_with(str(tmp_path / "password"))
    assert not processes_with("geheim-123")
    assert "geheim-123" not in agent_logs(tmp_path / "secured")
    assert "geheim-123" not in (tmp_path / "secured" / "run" / "controller.log").read_text()
    raise_on(tmp_path / "plain")
    where = ("up", "--home", str(tmp_path / "plain"))
    assert "was started before and serves without TLS" in wattledger(*where, "--agent-access", str(access)).stderr
