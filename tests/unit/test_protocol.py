"""The door between attempt and agent: one JSON line each way, and a lease that ends with its connection."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import wait_until
from tests.metering import MoodyMeter
from workers.contract import Lease, Phase, Power
from workers.errors import InputError, MeterError, UnreachableError
from workers.telemetry.client import AgentConnection, HeldLease
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.protocol import MAX_LINE, connect, decode, encode, find_notes, leave_note, socket_path
from workers.telemetry.server import LeaseServer, hold_node, wait_until_free
from workers.telemetry.takeover import Told


class Door:
    """A lease server over a simulated H100, whose disk takes everything unless ``disk_full``."""

    def __init__(self, path: Path) -> None:
        self.path, self.disk_full = path, False
        self.meter = MoodyMeter(time.time_ns, "H100")
        self.node = NodeMeter(self.meter, node="n1")
        self.server = LeaseServer(path, self.node, flush=self.flush)

    def flush(self) -> None:
        if self.disk_full:
            raise MeterError("the energy log cannot be written: No space left on device.")

    def says(self, line: bytes) -> dict[str, object]:
        """The answer to one line, on a connection of its own."""
        with connect(self.path, timeout_s=5) as client:
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as lines:
                return json.loads(lines.readline())

    def open_leases(self) -> list[str]:
        return [status.lease.job_id for status in self.node.snapshot().leases if status.open]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path / "agent.sock")
    opened.server.start()
    yield opened
    opened.server.stop()


def hold(connection: AgentConnection, job_id: str = "a", **wishes: object) -> HeldLease:
    fields = {"attempt": 1, "devices": ["0"], "cpus": 1.0, "phase": Phase.LOAD, "power": Power(), **wishes}
    return HeldLease(connection, job_id=job_id, **fields)


@pytest.mark.parametrize("line", [b"", b"\n", b"{", b"\xff\xfe", b"nonsense", b"[" * 50_000, b'{"op": "open"'])
def test_a_line_that_is_not_json_is_refused(line: bytes) -> None:
    with pytest.raises(InputError, match="not a JSON line"):
        decode(line)


@pytest.mark.parametrize("line", [b"[]", b"1", b'"open"', b"null"])
def test_a_line_that_is_not_an_object_is_refused(line: bytes) -> None:
    with pytest.raises(InputError, match="one JSON object per line"):
        decode(line)


def test_a_message_survives_the_line() -> None:
    message = {"op": "open", "devices": ["0"], "cpus": 1.5, "name": "a\nb", "power": None}
    assert encode(message).count(b"\n") == 1
    assert decode(encode(message)) == message


def test_a_folder_that_is_somebody_elses_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"wattledger-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"belongs to somebody else\. Remove it, or set TMPDIR"):
        socket_path(tmp_path, "n1")


def test_a_socket_has_a_short_path_of_its_own_in_a_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = socket_path(tmp_path / ("deep/" * 60), "n" * 200)
    assert len(path.name) == 21
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert socket_path(tmp_path, "n1") == socket_path(tmp_path, "n1") != socket_path(tmp_path, "n2")
    assert socket_path(tmp_path, "n1") != socket_path(tmp_path / "other", "n1")


def test_where_nobody_listens_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"no agent answers at .*Start one with `python -m workers.agent`"):
        AgentConnection(tmp_path / "none.sock")


def test_an_agent_that_hangs_up_is_unreachable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with AgentConnection(tmp_path / "s") as connection:
            listening.accept()[0].close()
            with pytest.raises(UnreachableError, match=r"the agent at .* (has gone|does not answer)"):
                connection.ask("describe")


def test_an_agent_that_says_nothing_is_unreachable_after_the_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with (
            AgentConnection(tmp_path / "s", timeout_s=0.01) as connection,
            pytest.raises(UnreachableError, match="does not answer: timed out"),
        ):
            connection.ask("describe")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"nonsense\n", "not a JSON line"),
        (b"[" * (MAX_LINE - 1), "not a JSON line"),
        (b"{}\n", "unknown op None."),
        (b'{"op": "steal"}\n', "unknown op 'steal'."),
        (b'{"op": ["open"]}\n', "unknown op ['open']."),
        (b'{"op": "pace"}\n', "no lease is open on this connection; open one first."),
        (b'{"op": "close"}\n', "no lease is open on this connection; open one first."),
    ],
)
def test_garbage_is_answered_with_an_error_and_harms_nobody(door: Door, line: bytes, sentence: str) -> None:
    with AgentConnection(door.path) as connection:
        hold(connection)
        answer = door.says(line)
        assert str(answer["error"]).startswith(sentence)
        assert answer["exit_code"] == 2
        assert door.open_leases() == ["a"]


def test_a_phase_that_is_none_is_refused_and_the_lease_stays_in_its_own(door: Door) -> None:
    with AgentConnection(door.path) as connection:
        hold(connection)
        with pytest.raises(InputError, match=r"unknown phase 'lunch'\. Known: baseline, evaluate, inf"):
            connection.ask("phase", phase="lunch")
        with pytest.raises(InputError, match=r"the request cannot be used: KeyError\('phase'\)"):
            connection.ask("phase")
        assert door.node.snapshot().leases[0].lease.phase is Phase.LOAD


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "job_id is missing; attempt is missing; devices is missing."),
        ({"job_id": ""}, "job_id string should match pattern"),
        ({"job_id": "../x"}, "job_id string should match pattern"),
        ({"attempt": 0}, "attempt input should be greater than or equal to 1 (given 0)."),
        ({"attempt": 2**31}, "attempt input should be less than or equal to 2147483647"),
        ({"attempt": "1"}, "attempt input should be a valid integer"),
        ({"devices": 0}, "devices input should be a valid tuple"),
        ({"devices": [0]}, "devices.0 input should be a valid string"),
        ({"cpus": 0}, "cpus input should be greater than 0 (given 0)."),
        ({"cpus": float("nan")}, "cpus input should be a finite number"),
        ({"cpus": float("inf")}, "cpus input should be a finite number"),
        ({"phase": "lunch"}, "phase input should be 'load', 'baseline', 'train', 'evaluate' or 'inference'"),
        ({"power": {"cap_watts": -1.0}}, "power.cap_watts input should be greater than 0"),
        ({"pid": 1}, "pid unknown key; known: job_id, attempt, devices, cpus, phase, power, rank."),
    ],
)
def test_a_lease_that_could_not_be_booked_is_refused_with_all_that_is_wrong(
    door: Door, fields: dict[str, object], sentence: str
) -> None:
    wanted = {"job_id": "a", "attempt": 1, "devices": ["0"], **fields} if fields else {}
    answer = door.says(encode({"op": "open", **wanted}))
    assert str(answer["error"]).startswith(f"no lease can be opened like that: {sentence}")
    assert answer["exit_code"] == 2
    assert door.open_leases() == []


def test_one_connection_holds_one_lease(door: Door) -> None:
    with AgentConnection(door.path) as connection:
        hold(connection)
        with pytest.raises(InputError, match="this connection already holds a lease"):
            hold(connection, "b")


def test_an_unknown_device_reaches_the_attempt_as_the_agents_own_sentence(door: Door) -> None:
    (board,) = door.meter.devices()
    with AgentConnection(door.path) as connection, pytest.raises(InputError) as raised:
        hold(connection, devices=["3"])
    assert str(raised.value) == f"unknown device '3'. Known: 0 ({board.uuid})."
    assert raised.value.exit_code == 2


def test_a_cap_that_cannot_be_set_reaches_the_attempt_as_one_sentence(door: Door) -> None:
    (board,) = door.meter.devices()
    with AgentConnection(door.path) as connection, pytest.raises(MeterError) as raised:
        hold(connection, power=Power(cap_watts=10.0))
    assert str(raised.value) == (
        f"{board.uuid} cannot be limited to 10 W: it takes 200 to 700 W. "
        "Set power.cap_watts or power.cap_percent within that range."
    )
    assert raised.value.exit_code == 1


def test_a_second_lease_of_one_attempt_is_refused_on_another_connection_too(door: Door) -> None:
    with AgentConnection(door.path) as first, AgentConnection(door.path) as second:
        hold(first)
        with pytest.raises(InputError, match=rf"already holds a lease on n1 \(process {os.getpid()}\)"):
            hold(second)


def test_energy_that_the_disk_refuses_is_not_confirmed(door: Door) -> None:
    with AgentConnection(door.path) as holder, AgentConnection(door.path) as connection:
        lease = hold(holder)
        door.disk_full = True
        assert lease.close() is None
        assert lease.unconfirmed == "the energy log cannot be written: No space left on device."
        assert door.open_leases() == []
        with pytest.raises(MeterError, match="No space left on device"):
            connection.ask("flush")
        door.disk_full = False
        assert connection.ask("flush") == {}


def test_a_lease_goes_through_its_phases_and_its_joules_are_confirmed(door: Door) -> None:
    (board,) = door.meter.devices()
    with AgentConnection(door.path) as connection:
        lease = hold(connection, power=Power(cap_watts=300.0))
        assert (lease.devices, lease.cap_watts) == ((board.uuid,), 300.0)
        assert door.node.snapshot().leases[0].lease.phase is Phase.LOAD
        lease.set_phase(Phase.TRAIN)
        assert door.node.snapshot().leases[0].lease.phase is Phase.TRAIN
        energy_mj = lease.close()
    entries = door.node.take_entries()
    assert energy_mj == sum(entry.energy_mj for entry in entries if entry.job_id == "a")
    # The close was answered only after the counter had refreshed once more, so nothing of the job is still to come.
    assert entries[-1].job_id is None
    assert entries[-1].start_ns == max(entry.end_ns for entry in entries if entry.job_id == "a")
    assert door.meter.boards[board.uuid].limit_mw == 700_000


def test_a_lease_that_a_hanging_driver_does_not_let_close_is_closed_when_its_holder_has_gone(tmp_path: Path) -> None:
    class Hanging(NodeMeter):
        """Its driver does not answer the first time a lease is to be closed."""

        tries = 0

        def close(self, lease_id: str) -> None:
            self.tries += 1
            if self.tries == 1:
                raise MeterError("a driver has not answered for 2 s.")
            super().close(lease_id)

    node = Hanging(MoodyMeter(time.time_ns, "H100"), node="n1")
    server = LeaseServer(tmp_path / "s", node, flush=lambda: None)
    server.start()
    with AgentConnection(tmp_path / "s") as connection:
        lease = hold(connection)
        assert lease.close() is None
        assert lease.unconfirmed == "a driver has not answered for 2 s."
    wait_until(lambda: not any(status.open for status in node.snapshot().leases), what="the lease is closed")
    server.stop()


def test_a_lease_that_is_resumed_while_its_first_connection_ends_stays_open(tmp_path: Path) -> None:
    class Slow(NodeMeter):
        """Closing waits until somebody has come to resume the lease, or no longer than that takes."""

        closing, resumed = threading.Event(), threading.Event()

        def resume(self, request: LeaseRequest, told: Told) -> Lease:
            lease = super().resume(request, told)
            self.resumed.set()
            return lease

        def close(self, lease_id: str) -> None:
            self.closing.set()
            self.resumed.wait(0.5)
            super().close(lease_id)

    node = Slow(MoodyMeter(time.time_ns, "H100"), node="n1")
    server = LeaseServer(tmp_path / "s", node, flush=lambda: None)
    server.start()
    first, second = AgentConnection(tmp_path / "s"), AgentConnection(tmp_path / "s")
    asked = {"job_id": "a", "attempt": 1, "devices": ["0"], "cpus": 1.0, "phase": "load"}
    first.ask("open", **asked)
    first.close()
    assert node.closing.wait(10)
    second.ask("resume", **asked, phases=[[1, "load"]], closed_ns=None)
    assert second.ask("phase", phase="train")["speed"] is not None
    second.close()
    server.stop()


def test_a_lease_ends_when_its_connection_does(door: Door) -> None:
    (board,) = door.meter.devices()
    with AgentConnection(door.path) as connection:
        hold(connection, power=Power(cap_watts=300.0))
        assert door.open_leases() == ["a"]
    wait_until(lambda: door.open_leases() == [], timeout_s=5, what="the lease to end")
    assert door.meter.boards[board.uuid].limit_mw == 700_000


def test_the_holder_is_the_process_the_kernel_names(door: Door) -> None:
    with AgentConnection(door.path) as connection:
        hold(connection)
        (status,) = door.node.snapshot().leases
    assert status.lease.pid == os.getpid()


def test_an_agent_describes_its_devices(door: Door) -> None:
    (board,) = door.meter.devices()
    with AgentConnection(door.path) as connection:
        assert connection.ask("describe") == {
            "node": "n1",
            "devices": [
                {"uuid": board.uuid, "index": 0, "model": "H100", "kind": "gpu", "method": "simulated", "up": True}
            ],
        }


def test_the_socket_is_for_this_user_alone_and_is_gone_afterwards(tmp_path: Path) -> None:
    door = Door(tmp_path / "agent.sock")
    door.server.start()
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
    door.server.stop()
    assert not door.path.exists()


def test_a_node_whose_agent_answers_takes_no_second_one(door: Door) -> None:
    with pytest.raises(InputError, match=rf"an agent of this node already answers at {door.path}\. Lease from it, or"):
        wait_until_free(door.path, timeout_s=0.1)


def test_a_node_that_an_agent_has_to_itself_is_free_once_that_lets_go(tmp_path: Path) -> None:
    held = hold_node(tmp_path / "s")
    with pytest.raises(InputError, match="an agent of this node already answers"):
        hold_node(tmp_path / "s", timeout_s=0.1)
    os.close(held)
    os.close(hold_node(tmp_path / "s"))


def test_a_socket_that_a_killed_agent_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "agent.sock"))
    wait_until_free(tmp_path / "agent.sock")
    door = Door(tmp_path / "agent.sock")
    door.server.start()
    assert door.says(b'{"op": "flush"}\n') == {}
    door.server.stop()


OPENING = {"job_id": "a", "attempt": 1, "devices": ["0"], "cpus": 1.0, "phase": "load", "power": {}}


@pytest.mark.parametrize(
    "told", [{}, {"phases": None}, {"phases": [[1]]}, {"phases": [["x", "load"]]}, {"phases": [[1, "lunch"]]}]
)
def test_a_return_that_tells_no_phases_is_refused(door: Door, told: dict[str, object]) -> None:
    answer = door.says(encode({"op": "resume", **OPENING, **told}))
    assert str(answer["error"]).startswith("the request cannot be used: ")
    assert door.open_leases() == []


def test_a_lease_that_is_resumed_on_another_connection_does_not_end_with_the_first(door: Door) -> None:
    with AgentConnection(door.path) as first, AgentConnection(door.path) as second:
        first.ask("open", **OPENING)
        second.ask("resume", **{**OPENING, "phase": "train"}, phases=[[1, "load"], [2, "train"]], closed_ns=None)
        first.close()
        assert second.ask("pace") == {"speed": 1.0}
        assert door.node.snapshot().leases[0].lease.phase is Phase.TRAIN
        second.ask("close")
    assert door.open_leases() == []


def test_a_lease_that_was_done_while_its_agent_was_away_is_closed_at_once(door: Door) -> None:
    with AgentConnection(door.path) as first, AgentConnection(door.path) as second:
        first.ask("open", **OPENING)
        second.ask("resume", **OPENING, phases=[[1, "load"]], closed_ns=time.time_ns())
        assert door.open_leases() == []
        assert second.ask("close")["energy_mj"] >= 0


@pytest.mark.parametrize(
    ("lease_id", "devices", "energy_mj", "why"),
    [
        ("x", ["GPU-1"], 7, ""),
        ("y", ["GPU-1"], None, "it has both parts"),
        ("x", [], None, "a device does not answer since the agent was started anew"),
    ],
)
def test_an_agent_that_comes_back_is_told_the_phases_it_missed_and_tells_the_joules_of_its_own_lease_alone(
    tmp_path: Path, lease_id: str, devices: list[str], energy_mj: int | None, why: str
) -> None:
    path = tmp_path / "agent.sock"
    answers = [
        {"lease_id": "x", "devices": ["GPU-1"], "speed": None, "cap_watts": None, "unmetered": {}},
        {"lease_id": lease_id, "devices": devices, "speed": None},
        {"energy_mj": 7},
    ]
    asked = []

    def serve(listening: socket.socket, count: int) -> None:
        with listening:
            client, _ = listening.accept()
            with client, client.makefile("rb") as lines:
                for _ in range(count):
                    asked.append(json.loads(lines.readline()))
                    client.sendall(encode(answers.pop(0)))
        path.unlink()

    def agent_that_answers(count: int) -> threading.Thread:
        """Answers so many requests on one connection, and is gone; it listens already."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        agent = threading.Thread(target=serve, args=(listening, count))
        agent.start()
        return agent

    agent = agent_that_answers(1)
    lease = hold(AgentConnection(path), close_wait_s=20)
    agent.join()
    lease.set_phase(None)
    lease.set_phase(Phase.TRAIN)
    agent = agent_that_answers(2)
    assert lease.close() == energy_mj
    assert (lease.unconfirmed is None) == (energy_mj is not None)
    assert why in (lease.unconfirmed or "")
    agent.join()
    assert [request["op"] for request in asked] == ["open", "resume", "close"]
    assert [phase for _, phase in asked[1]["phases"]] == ["load", None, "train"]
    assert asked[1]["phase"] == "train"
    assert asked[1]["devices"] == ["GPU-1"]


def test_a_note_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    leave_note(path, {"job_id": "a", "attempt": 1, "phases": []})
    (tmp_path / "agent.b.1.note").write_bytes(b"{")
    assert find_notes(path) == {
        tmp_path / "agent.a.1.0.note": {"job_id": "a", "attempt": 1, "phases": []},
        tmp_path / "agent.b.1.note": {},
    }
