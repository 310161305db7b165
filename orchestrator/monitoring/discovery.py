"""Tells Prometheus which agents there are now, in the format of its HTTP service discovery (``http_sd_configs``).

Asked anew at every request, so that nodes that come and go are scraped and dropped with no edit of its configuration.
When the cluster cannot be asked, the answer is an error and Prometheus goes on with the list it had.
"""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workers.errors import UnreachableError, WattledgerError
from workers.telemetry.web import WebServer, respond, serve_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Scrapable(Protocol):
    """An agent, as far as Prometheus cares; the cluster's ``AgentInfo`` is one."""

    @property
    def node(self) -> str:
        """The node's name, as in its metrics."""
        ...

    @property
    def accelerator(self) -> str:
        """Type of the node's devices."""
        ...

    @property
    def metrics_url(self) -> str:
        """Where its metrics are."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScrapeTarget:
    """An agent as ``read_targets`` finds it."""

    node: str
    accelerator: str
    metrics_url: str


def address_of(agent: Scrapable) -> str:
    """``host:port`` of an agent's exporter."""
    return urllib.parse.urlsplit(agent.metrics_url).netloc


def target_groups(agents: Sequence[Scrapable]) -> list[dict[str, object]]:
    """The agents in the format of ``http_sd_configs`` and ``file_sd_configs``, by node.

    Each series of a target gets its labels. An agent's metrics have their own ``node`` already, which is the same:
    ``honor_labels: true`` keeps Prometheus from storing it twice.
    """
    return [
        {"targets": [address_of(agent)], "labels": _labels(agent)}
        for agent in sorted(agents, key=lambda agent: agent.node)
    ]


def _labels(agent: Scrapable) -> dict[str, str]:
    labels = {"node": agent.node, "accelerator": agent.accelerator}
    scheme = urllib.parse.urlsplit(agent.metrics_url).scheme
    return labels if scheme == "http" else {**labels, "__scheme__": scheme}


def read_targets(url: str, *, timeout_s: float = 10.0) -> tuple[ScrapeTarget, ...]:
    """The agents that ``serve_targets`` tells at ``url``, by node.

    Raises:
        UnreachableError: it does not answer, or cannot ask its cluster.
    """
    try:
        # Without a proxy: it is this host's or the cluster's own server.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=timeout_s) as answer:
            groups = json.loads(answer.read())
    except OSError as error:
        raise UnreachableError(
            f"the agents cannot be asked for at {url}: {error}. Read the controller's log in the ledger's run folder."
        ) from error
    return tuple(
        ScrapeTarget(
            node=group["labels"]["node"],
            accelerator=group["labels"]["accelerator"],
            metrics_url=f"{group['labels'].get('__scheme__', 'http')}://{group['targets'][0]}/metrics",
        )
        for group in groups
    )


def serve_targets(agents: Callable[[], Sequence[Scrapable]], *, listen: str = "127.0.0.1", port: int = 0) -> WebServer:
    """Answer ``GET /`` with the agents there are, from a thread of its own, until the server is closed.

    Args:
        agents: asked at every request, from the server's threads.
        listen: address to bind; the default is reachable from this machine only.
        port: TCP port; 0 takes any that is free.

    Raises:
        InputError: the address or port cannot be bound.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in ("", "/"):
            return respond(start_response, "404 Not Found", b"the targets are at /\n")
        if environ["REQUEST_METHOD"] != "GET":
            return respond(start_response, "405 Method Not Allowed", b"use GET\n", headers=[("Allow", "GET")])
        try:
            groups = target_groups(agents())
        except WattledgerError as error:
            return respond(start_response, "503 Service Unavailable", f"{error}\n".encode())
        return respond(start_response, "200 OK", json.dumps(groups).encode(), content_type="application/json")

    return serve_app(answer, what="targets", listen=listen, port=port)
