"""A small HTTP server in a thread: what an agent and the head show to Prometheus.

One thread per request, each with a time limit, and the TLS handshake inside it: a client that says nothing holds up
nobody else. It logs no requests, and asks no name server anything.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from workers.errors import InputError
from workers.telemetry.access import OPEN, Access, ServedCertificate
from workers.telemetry.serving import Serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_S = 10.0
"""Seconds a client may stay silent before its connection is closed; Prometheus gives a scrape as long."""
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
"""Addresses that mean all of this machine's, and lead nowhere when a client uses them."""


class _Handler(WSGIRequestHandler):
    """Says nothing about requests."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: a scrape a second would fill the agent's log."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # Closing waits for no request that is still being answered.
    block_on_close = False

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily, served: ServedCertificate) -> None:
        self.address_family = family
        self._served = served
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # As in the base class, but for a look-up of the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class
        request.settimeout(REQUEST_S)
        tls = self._served.context()
        if tls is None:
            super().finish_request(request, client_address)
            return
        with tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)
            with contextlib.suppress(OSError):
                secured.unwrap()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class
        # A client that hangs up, stays silent or speaks no TLS is no news; anything else is a bug, and told.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@dataclass(frozen=True, kw_only=True)
class WebServer:
    """A server that is running; a context manager.

    Attributes:
        listen: address it listens on; ``port``: its TCP port, the real one when any was asked for.
        scheme: ``http`` or ``https``.
    """

    listen: str
    port: int
    scheme: str
    _serving: Serving

    @property
    def url(self) -> str:
        """Where it is, without a path or a slash at the end; by the host's name when it listens on all addresses."""
        named = socket.gethostname() if self.listen in EVERYWHERE else self.listen
        host = f"[{named}]" if ":" in named else named
        return f"{self.scheme}://{host}:{self.port}"

    def close(self) -> None:
        """Stop serving and free the port; a second call does nothing."""
        self._serving.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve_app(app: WSGIApplication, *, what: str, listen: str, port: int, access: Access = OPEN) -> WebServer:
    """Serve a WSGI application from a thread of its own.

    Args:
        app: what answers; called from several threads.
        what: what is served, for messages (``metrics``).
        listen: address or host name to bind.
        port: TCP port; 0 takes any that is free.
        access: who may read, and whether it is encrypted; a certificate that is renewed on disk is taken up.

    Raises:
        InputError: the address or port cannot be bound, or the certificate cannot be used.
    """
    served = ServedCertificate(access)
    guarded = app if access.user is None else _guarded(app, access)
    try:
        family, *_, address = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server((str(address[0]), port), family, served)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{what} cannot be served on {listen}:{port}: {str(error).rstrip('.')}. "
            "Choose another port, or 0 for any that is free, and an address of this machine."
        ) from error
    server.set_app(guarded)
    serving = Serving(server, name=what)
    return WebServer(listen=listen, port=server.server_port, scheme=access.scheme, _serving=serving)


def _guarded(app: WSGIApplication, access: Access) -> WSGIApplication:
    """``app`` for those who know the password, 401 for everybody else."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if access.admits(environ.get("HTTP_AUTHORIZATION")):
            return app(environ, start_response)
        headers = [("WWW-Authenticate", 'Basic realm="wattledger", charset="UTF-8"')]
        return respond(start_response, "401 Unauthorized", b"a name and a password are needed\n", headers=headers)

    return answer


def respond(
    start_response: StartResponse,
    status: str,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    """Answer with one body."""
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", content_type), length, *headers])
    return [body]
