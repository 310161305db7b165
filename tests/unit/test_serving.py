"""A server in a thread: it ends at once, whoever is connected, and leaves its address free."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.telemetry.serving import Serving


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        # A client that says nothing may be gone before it is answered nothing.
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(self.rfile.readline())


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(params=["unix", "tcp"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], socketserver.TCPServer]:
    if request.param == "unix":
        return lambda: UnixServer(str(tmp_path / "s"), Echo)
    return lambda: TcpServer(("127.0.0.1", 0), Echo)


def connect(server: socketserver.TCPServer) -> socket.socket:
    connection = socket.socket(server.address_family, socket.SOCK_STREAM)
    connection.settimeout(5)
    try:
        connection.connect(server.server_address)
    except OSError:
        connection.close()
        raise
    return connection


def test_an_ended_server_answers_nobody_and_may_be_ended_again(make: Callable[[], socketserver.TCPServer]) -> None:
    server = make()
    serving = Serving(server, name="echo")
    serving.end()
    serving.end()
    with pytest.raises(OSError, match="refused"):
        connect(server)
    assert "echo" not in {thread.name for thread in threading.enumerate()}


def test_it_answers_and_ends_while_a_client_stays(make: Callable[[], socketserver.TCPServer]) -> None:
    server = make()
    serving = Serving(server, name="echo")
    with connect(server) as asking, connect(server):
        asking.sendall(b"hello\n")
        assert asking.recv(16) == b"hello\n"
        serving.end()
