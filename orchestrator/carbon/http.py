"""Asking a server for JSON, politely: time limits, few retries, and an end to patience. Carbon's door of httpx.

Answers of 5xx, torn ones and broken connections are tried again after a growing, random wait; 429 after the time the
server names; any other 4xx is the asker's fault and is not. All the requests of one caller share one deadline.
"""

from __future__ import annotations

import email.utils
import itertools
import json
import random
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Self

from workers.errors import InputError, UnreachableError

if TYPE_CHECKING:  # it takes a tenth of a second, which commands that ask no server should not cost
    import httpx

ATTEMPTS = 5
TIMEOUT_S = 10.0
"""For a connection, and for each piece of an answer."""
DEADLINE_S = 60.0
"""For all requests of one report: what is missing then is asked for by the next one."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
MAX_BYTES = 4 << 20
"""A day at five minutes is 60 kB."""


@dataclass(frozen=True)
class _Again:
    """A request that may work later: why it failed, and how long the server asked to wait, s."""

    why: str
    after_s: float | None = None


@dataclass(frozen=True)
class _Answer:
    """What a server sent."""

    json: object


class Caller:
    """Makes requests until its deadline, which begins with the first.

    Args:
        transport: how requests travel; ``None``: as httpx does.
        timeout_s: for a connection, and for each piece of an answer, s.
        deadline_s: for all requests together, s.
        monotonic: the clock of the deadline, s.
        now_s: seconds since the epoch, for servers that name a date to come back at.
        sleep: waits for so many seconds.
        chance: a random number from 0 to 1, so that many callers do not come back at once.
    """

    def __init__(
        self,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
        monotonic: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._timeout_s, self._deadline_s = timeout_s, deadline_s
        self._monotonic, self._now_s, self._sleep, self._chance = monotonic, now_s, sleep, chance
        self._transport = transport
        self._clients: dict[bool, httpx.Client] = {}
        self._until: float | None = None

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> object:
        """The JSON at ``url``. ``headers`` and ``login`` (user, password) are secrets and are in no message.

        Raises:
            UnreachableError: no usable answer in time.
            InputError: the server refuses the request (4xx), or a secret would travel unencrypted.
        """
        import httpx  # noqa: PLC0415

        host = urllib.parse.urlsplit(url)
        is_here = host.hostname in ("localhost", "127.0.0.1", "::1")
        if (headers or login) and host.scheme != "https" and not is_here:
            raise InputError(f"{host.scheme}://{host.netloc} would get a key unencrypted; give an https:// address")
        auth = httpx.BasicAuth(*login) if login else None
        request = httpx.Request("GET", url, params=params, headers={**(headers or {}), "accept": "application/json"})
        client = self._client(is_here=is_here)
        for attempt in itertools.count():
            answer = self._once(client, request, auth)
            if isinstance(answer, _Answer):
                return answer.json
            longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
            wait_s = longest_s * self._chance() if answer.after_s is None else answer.after_s
            if attempt + 1 == ATTEMPTS or wait_s >= self._left_s():
                raise UnreachableError(f"{host.netloc} {answer.why}")
            self._sleep(wait_s)
        raise AssertionError("the count never ends")

    def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients.values():
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _client(self, *, is_here: bool) -> httpx.Client:
        """Made when it is first needed: most reports ask nobody, and certificates take a while to load."""
        import httpx  # noqa: PLC0415

        if is_here not in self._clients:
            # Nothing kept alive: a client that nobody closes holds no socket. A proxy named in the environment is for
            # the world outside, and knows no server of this machine.
            once = httpx.Limits(max_keepalive_connections=0)
            self._clients[is_here] = httpx.Client(transport=self._transport, limits=once, trust_env=not is_here)
        return self._clients[is_here]

    def _left_s(self) -> float:
        now = self._monotonic()
        if self._until is None:
            self._until = now + self._deadline_s
        return self._until - now

    def _once(self, client: httpx.Client, request: httpx.Request, auth: httpx.Auth | None) -> _Answer | _Again:
        import httpx  # noqa: PLC0415

        if (left_s := self._left_s()) <= 0:
            return _Again(f"was not asked any more: {self._deadline_s:g} s for all requests were over")
        request.extensions["timeout"] = httpx.Timeout(min(self._timeout_s, left_s)).as_dict()
        try:
            answer = client.send(request, auth=auth, stream=True)
            try:
                if answer.status_code != HTTPStatus.OK:
                    return self._refused(answer)
                return self._body(answer)
            finally:
                answer.close()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Again(f"does not answer ({str(error) or type(error).__name__})")

    def _body(self, answer: httpx.Response) -> _Answer | _Again:
        raw = b""
        for piece in answer.iter_bytes():
            raw += piece
            if len(raw) > MAX_BYTES:
                return _Again(f"answers with more than {MAX_BYTES >> 20} MiB")
            if self._left_s() <= 0:
                return _Again(f"answers too slowly: {self._deadline_s:g} s for all requests were over")
        try:
            return _Answer(json.loads(raw))
        except ValueError:
            return _Again("answers with something that is not JSON")

    def _refused(self, answer: httpx.Response) -> _Again:
        """Raises where asking again is no use."""
        code = answer.status_code
        if code == HTTPStatus.TOO_MANY_REQUESTS:
            return _Again("has had too many requests (429)", self._after_s(answer))
        if answer.is_server_error:
            return _Again(f"answers {code}", self._after_s(answer))
        host = answer.request.url.netloc.decode()
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise InputError(f"{host} refuses the key ({code}); check it, and that it may see this zone")
        raise InputError(f"{host} refuses the request ({code}); check zone and address")

    def _after_s(self, answer: httpx.Response) -> float | None:
        """Seconds of a ``Retry-After``, which is seconds or a date; ``None`` where it is neither."""
        header = answer.headers.get("retry-after", "")
        if header.strip().isdecimal():
            return float(header)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - self._now_s())
        except ValueError:
            return None
