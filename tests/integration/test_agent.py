"""A real agent process: however its clients, its parent or its disk end, the books are closed and limits are back."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import RunningAgent, has_ended, running_agent
from tests.clusters import wait_until
from tests.metering import energy_by_job
from workers.contract import Phase, Power
from workers.errors import InputError, MeterError
from workers.telemetry.client import AgentConnection, HeldLease

HOLD_AND_WORK = """
import sys
from pathlib import Path
from workers.contract import Phase, Power
from workers.telemetry.client import AgentConnection, HeldLease
connection = AgentConnection(Path(sys.argv[1]))
lease = HeldLease(connection, job_id=sys.argv[2], attempt=1, devices=["0"], cpus=1.0, phase=Phase.TRAIN,
                  power=Power(cap_watts=300.0))
print("held", flush=True)
while True:
    sum(range(10_000))
"""

SPAWN_AND_WAIT = """
import subprocess, sys
from workers import lifeline
child = lifeline.spawn("workers.agent", sys.argv[1:], stdout=subprocess.PIPE)
print(child.process.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One agent for the tests that leave it as it was."""
    with running_agent(tmp_path_factory.mktemp("agent"), meter="simulated:H100,T4") as agent:
        yield agent


def hold(connection: AgentConnection, job_id: str, *, power: Power | None = None) -> HeldLease:
    return HeldLease(
        connection, job_id=job_id, attempt=1, devices=["0"], cpus=1.0, phase=Phase.LOAD, power=power or Power()
    )


def run_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.agent", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("meter", "sentence"),
    [
        ("abacus", "unknown meter 'abacus'. Known: auto, nvml, simulated:TYPE[,TYPE...], replay:PATH[,PATH...]."),
        ("simulated:H10", "unknown simulated accelerator 'H10'. Did you mean 'H100'? Known: A100-80GB,"),
    ],
)
def test_a_meter_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, meter: str, sentence: str) -> None:
    ended = run_agent("--home", str(tmp_path), "--meter", meter)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(sentence)
    assert ended.stderr.count("\n") == 1


def test_an_address_that_cannot_be_bound_is_refused(tmp_path: Path) -> None:
    ended = run_agent("--home", str(tmp_path), "--meter", "simulated", "--listen", "203.0.113.1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("metrics cannot be served on 203.0.113.1:0")


def test_a_second_agent_of_the_same_node_is_refused_since_it_would_book_every_joule_twice(shared: RunningAgent) -> None:
    ended = run_agent("--home", str(shared.home.root), "--node", shared.node, "--meter", "simulated")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"an agent of this node already answers at {shared.socket}.")
    with shared.connect() as connection:
        assert connection.ask("describe")["node"] == shared.node


def test_of_two_agents_of_a_node_that_start_at_once_one_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.agent", "--home", str(tmp_path), "--node", "n1", "--cpu", "none"]
    agents = [
        subprocess.Popen(
            [*command, "--meter", "simulated:H100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    wait_until(lambda: any(agent.poll() is not None for agent in agents), what="one of them leaves")
    (left, stays) = sorted(agents, key=lambda agent: agent.poll() is None)
    assert left.returncode == InputError.exit_code
    assert "an agent of this node" in left.communicate()[1]
    stays.terminate()
    said, errors = stays.communicate(timeout=20)
    assert (json.loads(said)["node"], errors, stays.returncode) == ("n1", "", 0)


def test_clients_that_hang_up_leave_nothing_in_the_agents_log(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        url = urllib.parse.urlsplit(str(agent.info["metrics_url"]))
        for _ in range(20):
            for family, address, request in (
                (socket.AF_INET, (url.hostname, url.port), b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
                (socket.AF_UNIX, str(agent.socket), b'{"op": "describe"}\n' * 50),
            ):
                with socket.socket(family, socket.SOCK_STREAM) as client:
                    client.connect(address)
                    # Closing resets the connection, with the answer on its way.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.sendall(request)
        agent.flush()
        agent.child.release(timeout_s=10)
        assert agent.errors.read_text() == ""


def test_garbage_on_the_socket_is_answered_and_harms_nobody(shared: RunningAgent) -> None:
    with shared.connect() as connection:
        lease = hold(connection, "garbage")
        with socket.socket(socket.AF_UNIX) as stranger, stranger.makefile("rb") as lines:
            stranger.settimeout(10)
            stranger.connect(str(shared.socket))
            for garbage in (b"\x00\xff\n", b"[" * 60_000 + b"\n", b'{"op": "close"}\n', b'{"op": "open", "cpus": 0}\n'):
                stranger.sendall(garbage)
                assert set(json.loads(lines.readline())) == {"error", "exit_code"}
        assert shared.metrics("wattledger_lease_info") == {"garbage": 1.0}
        assert lease.close() > 0


def test_a_second_lease_of_the_same_attempt_is_refused(shared: RunningAgent) -> None:
    with shared.connect() as first, shared.connect() as second:
        hold(first, "twice")
        with pytest.raises(InputError, match=rf"attempt 1 of twice already holds a lease on {shared.node}"):
            hold(second, "twice")
        assert shared.metrics("wattledger_lease_info") == {"twice": 1.0}


def test_the_socket_is_for_this_user_alone(shared: RunningAgent) -> None:
    assert stat.S_IMODE(shared.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(shared.socket.parent.stat().st_mode) == 0o700


def test_an_agent_says_what_it_meters(shared: RunningAgent) -> None:
    with shared.connect() as connection:
        described = connection.ask("describe")
    assert [(d["index"], d["model"], d["method"], d["up"]) for d in described["devices"]] == [
        (0, "H100", "simulated", True),
        (1, "T4", "simulated", True),
    ]
    announced = shared.info["devices"]
    assert announced == [{key: d[key] for key in ("uuid", "model", "kind", "method")} for d in described["devices"]]


def test_the_files_on_disk_sum_to_the_counter(shared: RunningAgent) -> None:
    def equal() -> bool:
        before = shared.counter_mj()
        shared.flush()
        on_disk = sum(entry.energy_mj for entry in shared.entries())
        after = shared.counter_mj()
        assert on_disk <= after
        # One figure only where no counter refreshed meanwhile, and nothing of an edge waits for a closer look.
        return before == on_disk == after

    wait_until(equal, what="two equal looks at the counters")


def test_a_closed_leases_joules_are_on_disk_by_phase_when_close_returns(shared: RunningAgent) -> None:
    with shared.connect() as connection:
        lease = hold(connection, "phases")
        lease.set_phase(Phase.TRAIN)
        sum(range(3_000_000))
        energy_mj = lease.close()
    mine = [entry for entry in shared.entries() if entry.job_id == "phases"]
    assert sum(entry.energy_mj for entry in mine) == energy_mj > 0
    assert {entry.phase for entry in mine} <= {Phase.LOAD, Phase.TRAIN}
    assert {entry.method for entry in mine} == {"simulated"}
    assert shared.metrics("wattledger_job_energy_joules_total")["phases"] == energy_mj / 1000


def test_a_client_killed_while_it_holds_a_cap_is_booked_and_the_limit_from_before_comes_back(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent, agent.connect() as other:
        hold(other, "other", power=Power(cap_watts=500.0))
        client = subprocess.Popen(
            [sys.executable, "-c", HOLD_AND_WORK, str(agent.socket), "victim"], stdout=subprocess.PIPE
        )
        with contextlib.closing(client.stdout):
            assert client.stdout.readline() == b"held\n"
            assert agent.metrics("wattledger_device_power_limit_watts") == {"H100": 300.0}
            drawn = lambda: agent.metrics("wattledger_job_energy_joules_total")["victim"] > 0  # noqa: E731
            wait_until(drawn, what="energy booked to the victim")
            client.kill()
            client.wait()
        wait_until(lambda: "victim" not in agent.metrics("wattledger_lease_info"), timeout_s=5, what="its lease to end")
        assert agent.metrics("wattledger_device_power_limit_watts") == {"H100": 500.0}
        other.close()
        back = lambda: agent.metrics("wattledger_device_power_limit_watts") == {"H100": 700.0}  # noqa: E731
        wait_until(back, timeout_s=5, what="the limit from before both caps")
        agent.flush()
        booked_j = agent.metrics("wattledger_job_energy_joules_total")["victim"]
    on_disk = [entry for entry in agent.entries() if entry.job_id == "victim"]
    assert sum(entry.energy_mj for entry in on_disk) == round(booked_j * 1000)
    assert {entry.phase for entry in on_disk} == {Phase.TRAIN}


def test_an_agent_ends_when_its_parent_lets_go_with_its_entries_on_disk(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent, agent.connect() as connection:
        hold(connection, "a")
        drawn = lambda: agent.metrics("wattledger_job_energy_joules_total")["a"] > 0  # noqa: E731
        wait_until(drawn, what="energy booked to the job")
        seen_mj = agent.counter_mj()
        assert agent.child.release(timeout_s=10) == 0
    assert not agent.socket.exists()
    assert sum(entry.energy_mj for entry in agent.entries()) >= seen_mj
    assert "a" in energy_by_job(agent.entries())
    assert agent.errors.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_agent_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running_agent(tmp_path) as agent, agent.connect() as connection:
        hold(connection, "a")
        seen_mj = agent.counter_mj()
        agent.child.process.send_signal(number)
        assert agent.child.process.wait(10) == 0
        agent.child.release(timeout_s=0)
    assert not agent.socket.exists()
    assert sum(entry.energy_mj for entry in agent.entries()) >= seen_mj
    assert agent.errors.read_text() == ""


def test_an_agent_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    arguments = ["--home", str(tmp_path / "home"), "--node", tmp_path.name, "--meter", "simulated"]
    parent = subprocess.Popen(
        [sys.executable, "-c", SPAWN_AND_WAIT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with contextlib.closing(parent.stdin), contextlib.closing(parent.stdout):
        info = json.loads(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_until(lambda: has_ended(info["pid"]), timeout_s=10, what="the orphaned agent to end")
    assert not Path(info["socket"]).exists()


def test_an_agent_started_while_its_forerunner_leaves_takes_its_place(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        letting_go = threading.Thread(target=lambda: agent.child.release(timeout_s=10))
        letting_go.start()
        successor = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "workers.agent",
                "--home",
                str(agent.home.root),
                "--node",
                agent.node,
                "--meter",
                "simulated:H100",
            ],
            stdout=subprocess.PIPE,
        )
        letting_go.join()
        assert agent.child.process.returncode == 0
    with contextlib.closing(successor.stdout):
        info = json.loads(successor.stdout.readline())
        with AgentConnection(Path(info["socket"])) as connection:
            assert connection.ask("describe")["node"] == agent.node
        successor.terminate()
        assert successor.wait(10) == 0


def test_a_disk_that_refuses_stops_no_metering_and_is_made_up_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "energy").write_text("in the way")
    with running_agent(tmp_path) as agent:
        with agent.connect() as holder, agent.connect() as connection:
            lease = hold(holder, "a")
            assert lease.close() is None
            assert lease.unconfirmed.startswith("the energy log cannot be written: ")
            with pytest.raises(MeterError, match=r"kept in memory and tried again; make room in"):
                connection.ask("flush")
        booked_j = agent.metrics("wattledger_job_energy_joules_total")["a"]
        assert booked_j > 0
        wait_until(lambda: "cannot be written" in agent.errors.read_text(), what="the agent to say so")
        (home / "energy").unlink()
        agent.flush()
        assert energy_by_job(agent.entries())["a"] == round(booked_j * 1000)
    assert agent.errors.read_text().count("\n") == 1


def test_entries_that_could_never_be_written_are_named_at_the_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "energy").write_text("in the way")
    with running_agent(tmp_path) as agent:
        wait_until(lambda: agent.counter_mj() > 0, what="a first joule")
        assert agent.child.release(timeout_s=10) == 0
    assert agent.errors.read_text().endswith(" J could not be written to the energy log and are lost with this agent\n")
