"""The private Prometheus server: it starts or says why not, and it never outlives its owner."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from orchestrator.keeper import Kept
from orchestrator.monitoring.server import LocalPrometheus, find_prometheus
from tests.prometheus_server import ask, is_gone, listening, read_url, servers_of, wait_until
from workers.errors import InputError, UnreachableError

pytestmark = pytest.mark.prometheus

OWNER = """
import signal, sys
from pathlib import Path
from orchestrator.keeper import Kept
from orchestrator.monitoring.server import LocalPrometheus

with LocalPrometheus(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    signal.pause()
"""

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def process_of(url: str, pid: int) -> psutil.Process:
    """The server at ``url``, which must be one below ``pid``."""
    (found,) = [server for server in servers_of(pid) if listening(server) == {("127.0.0.1", port_of(url))}]
    return found


def test_a_machine_without_prometheus_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_prometheus() is None
    with pytest.raises(UnreachableError, match="Install it, or point at a server of your own"), LocalPrometheus():
        pass


def test_a_taken_port_is_refused_with_what_the_server_said(tmp_path: Path) -> None:
    with LocalPrometheus() as first:
        port = port_of(first.url)
        with (
            pytest.raises(
                UnreachableError, match=f"does not start(?s:.*)127.0.0.1:{port}: bind: address already in use"
            ),
            LocalPrometheus(tmp_path / "second", port=port),
        ):
            pass
        assert read_url(f"{first.url}/-/ready") == "Prometheus Server is Ready.\n"


@pytest.mark.parametrize("program", [Path("/bin/false"), Path("/no/such/program")])
def test_a_program_that_does_not_start_is_refused(program: Path) -> None:
    with (
        pytest.raises(UnreachableError, match="the Prometheus server does not start"),
        LocalPrometheus(program=program),
    ):
        pass


def test_a_wrong_interval_is_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="'often' is not a duration"):
        LocalPrometheus(interval="often")


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    with LocalPrometheus(tmp_path) as first:
        with pytest.raises(InputError, match="another Prometheus server uses"), LocalPrometheus(tmp_path):
            pass
        assert read_url(f"{first.url}/-/ready") == "Prometheus Server is Ready.\n"


def test_a_target_that_is_not_up_is_named() -> None:
    with LocalPrometheus(targets=["127.0.0.1:1"]) as server, pytest.raises(UnreachableError) as missing:
        server.wait_for_targets(timeout_s=0.1)
    assert str(missing.value) == (
        "Prometheus cannot scrape 127.0.0.1:1 (not scraped yet). Check that the node's agent runs there."
    )


def test_a_server_and_its_temporary_folder_are_gone_after_its_context() -> None:
    with LocalPrometheus() as server:
        process, folder = process_of(server.url, psutil.Process().pid), server.folder
        assert folder.is_relative_to(tempfile.gettempdir())
    assert is_gone(process)
    assert not folder.exists()
    for told in (lambda: server.url, lambda: server.folder, lambda: server.set_targets([])):
        with pytest.raises(UnreachableError, match="not running; enter it first"):
            told()


def test_an_error_inside_the_context_ends_the_server_too() -> None:
    seen: list[psutil.Process] = []

    def fail_inside() -> None:
        with LocalPrometheus() as server:
            seen.append(process_of(server.url, psutil.Process().pid))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail_inside()
    assert [is_gone(process) for process in seen] == [True]


def test_a_folder_of_ones_own_keeps_its_data_and_can_be_used_again(tmp_path: Path) -> None:
    server = LocalPrometheus(tmp_path / "prometheus")
    for _ in range(2):
        with server:
            assert ask(server.url, "vector(1)")
            assert server.folder == tmp_path / "prometheus"
    assert (tmp_path / "prometheus" / "data" / "wal").is_dir()
    assert "Listening on" in (tmp_path / "prometheus" / "prometheus.log").read_text()


def test_servers_started_side_by_side_have_ports_of_their_own() -> None:
    with LocalPrometheus() as first, LocalPrometheus() as second:
        own = psutil.Process().pid
        assert process_of(first.url, own).pid != process_of(second.url, own).pid


def test_a_server_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        process = process_of(owner.stdout.readline().strip(), owner.pid)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(process), timeout_s=10)


def test_a_server_whose_keeper_was_killed_still_ends_with_its_context() -> None:
    with LocalPrometheus() as server:
        process = process_of(server.url, psutil.Process().pid)
        keeper = process.parent()
        assert keeper is not None
        keeper.kill()
    wait_until(lambda: is_gone(process), timeout_s=10)


def test_a_server_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    kept = Kept([sys.executable, "-c", STUBBORN], tmp_path / "log")
    wait_until(lambda: "deaf" in (tmp_path / "log").read_text())
    (server,) = [child for child in psutil.Process().children(recursive=True) if child.cmdline()[-1] == STUBBORN]
    kept.end()
    assert is_gone(server)
