"""A ``socketserver`` in a thread that sleeps until somebody comes, and ends at once.

The standard library's way is to look several times a second whether the end has come, which costs an idle agent as
much as reading two boards ten times a second does.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading


class Serving:
    """``server``, served by a thread called ``name`` from now on."""

    def __init__(self, server: socketserver.TCPServer, *, name: str) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(None,), name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take no more connections and let go of the socket; a second call does nothing."""
        # Its loop wakes when the listening socket is shut down, and then finds what ``shutdown`` has asked of it.
        ending = threading.Thread(target=self._server.shutdown, name="ending")
        ending.start()
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        ending.join()
        self._server.server_close()
        self._thread.join()
