"""A private Prometheus server for a local cluster.

It listens on the loopback interface alone, on a port the kernel chooses, so two of them never race for
one, and it does not outlive its owner (see ``orchestrator.keeper``).
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from orchestrator.keeper import Kept
from orchestrator.monitoring.scrape import duration, file_config, http_config, target_list
from workers.errors import InputError, UnreachableError
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

HOST = "127.0.0.1"
NOT_RUNNING = "the Prometheus server is not running; enter it first."
START_S = 30.0
"""Seconds a server may take to answer. A fresh one takes 0.1 s; one with days of data replays its log first."""


def find_prometheus() -> Path | None:
    """The ``prometheus`` program on the search path; ``None`` when there is none."""
    found = shutil.which("prometheus")
    return Path(found) if found else None


class LocalPrometheus:
    """A Prometheus server of this process's own, running between ``__enter__`` and ``__exit__``.

    Prometheus takes up new targets in two steps of up to 5 s each: expect 3 to 10 s from ``set_targets`` to the first
    sample, and call ``wait_for_targets`` before anything is measured with it.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        targets: Sequence[str] = (),
        discovery_url: str | None = None,
        access: AgentAccess = UNPROTECTED,
        interval: str = "250ms",
        retention: str = "2d",
        port: int = 0,
        program: Path | None = None,
    ) -> None:
        """Set the server up; nothing runs yet.

        Args:
            folder: where its data, configuration and log are kept; ``None`` is a temporary folder.
            targets: ``host:port`` to scrape from the start.
            discovery_url: where targets are asked for instead, again and again (see ``discovery``).
            access: how the targets of the discovery are protected.
            interval: time between scrapes, a Prometheus duration.
            retention: how long samples are kept, a Prometheus duration.
            port: TCP port; 0 takes any that is free.
            program: the server; ``None`` searches for it when entered.

        Raises:
            InputError: not a duration.
        """
        self._given_folder = folder
        self._targets, self._discovery_url, self._access = tuple(targets), discovery_url, access
        self._interval, self._retention = duration(interval), duration(retention)
        self._port, self._program = port, program
        self._running = contextlib.ExitStack()
        self._folder: Path | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where its query API is.

        Raises:
            UnreachableError: it is not running.
        """
        if self._url is None:
            raise UnreachableError(NOT_RUNNING)
        return self._url

    @property
    def folder(self) -> Path:
        """Where its files are; what the server says is in ``prometheus.log`` there.

        Raises:
            UnreachableError: it is not running.
        """
        if self._folder is None:
            raise UnreachableError(NOT_RUNNING)
        return self._folder

    def __enter__(self) -> LocalPrometheus:
        """Start the server and wait until it answers.

        Raises:
            UnreachableError: no program, or it does not start; the message ends with what its log says.
            InputError: another server uses the folder.
        """
        program = self._program or find_prometheus()
        if program is None:
            raise UnreachableError(
                "there is no prometheus program on the search path. Install it, or point at a server of your own."
            )
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            self._folder = self._claim_folder(stack)
            self.set_targets(self._targets)
            _replace(self.folder / "prometheus.yml", self._config())
            kept = Kept(self._command(program), self._folder / "prometheus.log")
            stack.callback(kept.end)
            self._wait_ready(kept)
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    def _config(self) -> str:
        if self._discovery_url is not None:
            return http_config(self._discovery_url, self._interval, access=self._access)
        return file_config(self.folder / "targets.json", self._interval)

    def set_targets(self, targets: Sequence[str]) -> None:
        """Scrape exactly ``targets`` (``host:port`` each) from now on; the file is replaced in one step.

        A server that asks a discovery for its targets does not look at it.

        Raises:
            UnreachableError: it is not running.
        """
        self._targets = tuple(targets)
        _replace(self.folder / "targets.json", target_list(self._targets))

    def wait_for_targets(self, timeout_s: float = 20.0) -> None:
        """Wait until every target has been scraped, and the last scrape worked.

        Raises:
            UnreachableError: one is not up in time; the message says why.
        """
        waiting: dict[str, str] = {}

        def all_up() -> bool:
            waiting.clear()
            waiting.update(self._waiting())
            return not waiting

        if not _poll(all_up, timeout_s):
            told = "; ".join(f"{target} ({reason or 'not scraped yet'})" for target, reason in waiting.items())
            raise UnreachableError(f"Prometheus cannot scrape {told}. Check that the node's agent runs there.")

    def _waiting(self) -> dict[str, str]:
        """The targets that are not up, with Prometheus' own reason; empty when it has not tried yet."""
        reported = json.loads(_get(self.url, "/api/v1/targets?state=active"))["data"]["activeTargets"]
        states = {item["labels"]["instance"]: item for item in reported}
        return {
            target: states[target]["lastError"] if target in states else ""
            for target in self._expected()
            if target not in states or states[target]["health"] != "up"
        }

    def _expected(self) -> tuple[str, ...]:
        """What it is to scrape now."""
        if self._discovery_url is None:
            return self._targets
        found = urllib.parse.urlsplit(self._discovery_url)
        groups = json.loads(_get(f"http://{found.netloc}", found.path or "/", who="the targets' server"))
        return tuple(target for group in groups for target in group["targets"])

    def _claim_folder(self, stack: contextlib.ExitStack) -> Path:
        """The folder, held against other servers until ``stack`` closes."""
        if self._given_folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="wattledger-prometheus-")
            folder = Path(stack.enter_context(temporary))
        else:
            folder = self._given_folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_lock(folder))
        return folder

    def _command(self, program: Path) -> list[str]:
        return [
            str(program),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--web.listen-address={HOST}:{self._port}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--storage.tsdb.retention.time={self._retention}",
        ]

    def _wait_ready(self, kept: Kept) -> None:
        def ready_or_ended() -> bool:
            port = kept.listening_port()
            self._url = None if port is None else f"http://{HOST}:{port}"
            return kept.ended or (self._url is not None and _answers(self._url, "/-/ready"))

        if not _poll(ready_or_ended, START_S) or kept.ended:
            log = (self.folder / "prometheus.log").read_text(errors="replace")
            last = "\n".join(log.splitlines()[-3:])
            raise UnreachableError(f"the Prometheus server does not start. Mend what its log ends with:\n{last}")

    def _forget(self) -> None:
        self._folder, self._url = None, None


def _get(url: str, path: str, *, who: str = "Prometheus") -> bytes:
    """The body of ``url`` + ``path``; by ``http.client``, which takes no proxy from the environment."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{who} at {url} does not answer: {error}. Check that it still runs.") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise UnreachableError(f"{who} at {url} answers {response.status} to {path}. Look into its log.")
    return body


def _answers(url: str, path: str) -> bool:
    try:
        _get(url, path)
    except UnreachableError:
        return False
    return True


def _poll(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether ``condition`` came true within ``timeout_s`` seconds."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def _replace(path: Path, text: str) -> None:
    """Write ``path`` in one step: Prometheus watches it and must not read half a file."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder: two servers writing one database would destroy it, and not every build locks it itself."""
    file = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another Prometheus server uses {folder}. Stop it, or name another folder.") from error
        yield
    finally:
        os.close(file)
