"""The discovery on a real Ray cluster, followed by a real Prometheus, while a node joins and leaves."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.cluster.local import LocalCluster, LocalNode, local_cluster, local_node
from orchestrator.monitoring.server import LocalPrometheus
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
def serving(cluster: LocalCluster, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``wattledger targets --serve`` and where it serves; ended after the test."""
    process = start("targets", "--address", cluster.address, "--home", str(tmp_path), "--serve", "0")
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def accelerators(url: str) -> list[str]:
    return sorted(group["labels"]["accelerator"] for group in json.loads(read_url(url)))


def wait_until_one_is_left(cluster: LocalCluster, home: Path) -> None:
    """Ray takes some seconds to know that a node left; until then a command that joins would start an agent there."""

    def is_one_left() -> bool:
        told = wattledger("targets", "--address", cluster.address, "--home", str(home), "--json")
        return told.returncode == 0 and len(json.loads(told.stdout)) == 1

    wait_until(is_one_left, what="Ray to know that the other node left")


def known(server: LocalPrometheus) -> list[str]:
    """Accelerators of all targets, up or not."""
    return sorted(name for (name,) in values(server.url, "up", "accelerator"))


def scraped(server: LocalPrometheus) -> list[str]:
    """Accelerators of the targets that are up."""
    return sorted(name for (name,), is_up in values(server.url, "up", "accelerator").items() if is_up)


def test_nodes_that_join_and_leave_are_followed_and_their_agents_started_and_ended(
    cluster: LocalCluster, serving: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, process = serving
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
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_node_whose_agent_does_not_start_is_told_once_and_holds_up_no_other(
    cluster: LocalCluster, serving: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, process = serving
    strange = LocalNode(accelerator="B200", board_uuid=None)
    with local_node(cluster.address, strange, log=tmp_path / "strange.log"):

        def has_said_why() -> bool:
            assert accelerators(url) == ["H100"]
            return "B200" in agent_logs(tmp_path)

        wait_until(has_said_why, what="the agent to say why it does not start")
        for _ in range(10):
            assert accelerators(url) == ["H100"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    wait_until_one_is_left(cluster, tmp_path)
    assert "did not start: unknown simulated accelerator 'B200'" in err
    assert err.count("did not start") == 1


def agent_logs(home: Path) -> str:
    return "".join(path.read_text() for path in home.glob("run/agent-*.log"))


def test_a_run_uses_a_node_that_joins_while_jobs_wait(cluster: LocalCluster, tmp_path: Path) -> None:
    manifest = quick_manifest(tmp_path, steps=4000, more="seeds: [0, 1]")
    running = start("run", str(manifest), "--address", cluster.address, "--home", str(tmp_path))
    try:
        wait_until(lambda: len(working(tmp_path)) == 1, what="the first job to run")
        late = LocalNode(accelerator="H100", board_uuid=None)
        with local_node(cluster.address, late, log=tmp_path / "late.log"):
            wait_until(lambda: len(working(tmp_path)) == 2, what="the second job to run beside it")
            told = wattledger("status", "--home", str(tmp_path), "--json")
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    wait_until_one_is_left(cluster, tmp_path)
    jobs = json.loads(told.stdout)["jobs"]
    assert [job["state"] for job in jobs] == ["running", "running"]
    assert len({job["attempts"][0]["node"] for job in jobs}) == 2
    assert running.returncode == 130, err


def working(home: Path) -> list[Path]:
    """Attempts that make progress."""
    return list(home.glob("artifacts/*/attempt-1/progress.json"))


def test_targets_are_listed_for_people_and_for_programs(cluster: LocalCluster, tmp_path: Path) -> None:
    where = ("--address", cluster.address, "--home", str(tmp_path))
    listed = wattledger("targets", *where, "--json")
    assert listed.returncode == 0, listed.stderr
    (group,) = json.loads(listed.stdout)
    assert group["labels"]["accelerator"] == "H100"
    table = wattledger("targets", *where)
    assert f"http://{group['targets'][0]}/metrics" in table.stdout
    assert "H100 (simulated)" in table.stdout
    assert "its own host alone" in table.stdout


def test_agents_listen_where_they_are_told_and_one_that_runs_keeps_its_address(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    where = ("--address", cluster.address, "--home", str(tmp_path / "wide"))
    wide = wattledger("targets", *where, "--agent-listen", "0.0.0.0", "--json")
    assert wide.returncode == 0, wide.stderr
    (group,) = json.loads(wide.stdout)
    host = group["targets"][0].rpartition(":")[0]
    assert host == cluster.address.rpartition(":")[0]
    assert "wattledger_device_up" in read_url(f"http://{group['targets'][0]}/metrics")
    where = ("--address", cluster.address, "--home", str(tmp_path / "narrow"))
    assert wattledger("targets", *where).stderr == ""
    kept = wattledger("targets", *where, "--agent-listen", "0.0.0.0")
    assert "was started before and is reached from its own host alone" in kept.stderr


def test_agents_that_ray_starts_serve_over_tls_to_who_knows_the_password_and_show_it_nowhere(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    cert, _ = self_signed(tmp_path)
    (tmp_path / "password").write_text("geheim-123\n")
    access = tmp_path / "access.toml"
    access.write_text(
        f'tls_cert = "{cert.name}"\ntls_key = "agent.key"\ntls_ca = "{cert.name}"\n'
        'auth_user = "prometheus"\nauth_password_file = "password"\n'
    )
    where = ("--address", cluster.address, "--home", str(tmp_path / "secured"))
    with ExitStack() as stack:
        process = start("targets", *where, "--agent-access", str(access), "--serve", "0")
        stack.callback(process.communicate, timeout=60)
        stack.callback(process.terminate)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        (group,) = json.loads(read_url(url))
        assert group["labels"]["__scheme__"] == "https"
        server = stack.enter_context(
            LocalPrometheus(discovery_url=url, interval="500ms", access=AgentAccess.read(access))
        )
        server.wait_for_targets()
        assert scraped(server) == ["H100"]
        assert processes_with(str(tmp_path / "password"))
        assert not processes_with("geheim-123")
    assert "geheim-123" not in agent_logs(tmp_path / "secured")
    plain = ("--address", cluster.address, "--home", str(tmp_path / "plain"))
    assert wattledger("targets", *plain).stderr == ""
    kept = wattledger("targets", *plain, "--agent-access", str(access))
    assert "was started before and serves without TLS" in kept.stderr
