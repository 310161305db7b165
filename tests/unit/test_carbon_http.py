"""Asking for JSON over a real socket: what is tried again, what is not, how long, and what no message ever holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from orchestrator.carbon.http import ATTEMPTS, Caller
from tests.unit.intensity_server import TOKEN, IntensityServer, serving
from workers.errors import InputError, UnreachableError

PATH = "/v3/carbon-intensity/past-range"
DAY = {"zone": "DE", "start": "2024-01-01T00:00Z", "end": "2024-01-02T00:00Z"}


@pytest.fixture
def server() -> Iterator[IntensityServer]:
    with serving(IntensityServer()) as running:
        yield running


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def ask(server: IntensityServer, clock: Clock | None = None, *, token: str = TOKEN, **more: float) -> object:
    clock = clock or Clock()
    with Caller(
        monotonic=clock.monotonic, sleep=clock.sleep, chance=lambda: 0.5, now_s=lambda: 1_704_110_400.0, **more
    ) as caller:
        return caller.get(server.url + PATH, params=DAY, headers={"auth-token": token})


def test_a_server_that_is_not_there_is_told_after_a_few_tries() -> None:
    clock = Clock()
    with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:1 does not answer \(.*Connection refused\)$"):
        ask(IntensityServer(url="http://127.0.0.1:1"), clock)
    assert clock.slept == [0.25, 0.5, 1.0, 2.0]


def test_a_wrong_key_is_not_tried_again_and_is_in_no_message(server: IntensityServer) -> None:
    with pytest.raises(InputError, match=r"refuses the key \(401\)") as refused:
        ask(server, token="wrong-token")
    assert len(server.asked) == 1
    assert "wrong-token" not in repr(refused.value)


def test_a_path_that_is_not_there_is_not_tried_again(server: IntensityServer) -> None:
    with Caller() as caller, pytest.raises(InputError, match=r"refuses the request \(404\); check zone and address"):
        caller.get(server.url + "/nowhere")
    assert len(server.asked) == 1


@pytest.mark.parametrize("mishap", ["503", "torn", "html"])
def test_what_may_pass_is_tried_again_until_it_has(server: IntensityServer, mishap: str) -> None:
    server.mishaps = [mishap, "503", mishap]
    clock = Clock()
    assert isinstance(ask(server, clock), dict)
    assert clock.slept == [0.25, 0.5, 1.0]


def test_what_does_not_pass_is_told(server: IntensityServer) -> None:
    server.mishaps = ["503"] * ATTEMPTS
    with pytest.raises(UnreachableError, match=r"answers 503$"):
        ask(server)
    assert len(server.asked) == ATTEMPTS


@pytest.mark.parametrize("retry_after", ["7", "Mon, 01 Jan 2024 12:00:07 GMT"])
def test_too_many_requests_are_followed_by_the_wait_the_server_names(server: IntensityServer, retry_after: str) -> None:
    server.mishaps, server.retry_after = ["429"], retry_after
    clock = Clock()
    ask(server, clock)
    assert clock.slept == [7.0]


def test_a_wait_beyond_the_deadline_is_not_begun(server: IntensityServer) -> None:
    server.mishaps, server.retry_after = ["429"], "3600"
    clock = Clock()
    with pytest.raises(UnreachableError, match="too many requests"):
        ask(server, clock)
    assert clock.slept == []


def test_a_wait_nobody_can_read_is_our_own(server: IntensityServer) -> None:
    server.mishaps, server.retry_after = ["429"], "soon"
    clock = Clock()
    ask(server, clock)
    assert clock.slept == [0.25]


def test_a_slow_answer_is_given_up(server: IntensityServer) -> None:
    server.mishaps = ["slow", "ok"]
    assert isinstance(ask(server, timeout_s=0.1), dict)
    assert len(server.asked) == 2


def test_all_requests_share_one_deadline(server: IntensityServer) -> None:
    clock = Clock()
    with Caller(deadline_s=60.0, monotonic=clock.monotonic) as caller:
        caller.get(server.url + PATH, params=DAY, headers={"auth-token": TOKEN})
        clock.now_s += 60
        with pytest.raises(UnreachableError, match="was not asked any more: 60 s for all requests were over"):
            caller.get(server.url + PATH, params=DAY, headers={"auth-token": TOKEN})
    assert len(server.asked) == 1


def test_an_answer_that_trickles_in_ends_with_the_deadline(server: IntensityServer) -> None:
    seconds = itertools.count(step=70.0)
    with (
        Caller(deadline_s=60.0, monotonic=lambda: next(seconds)) as caller,
        pytest.raises(UnreachableError, match="answers too slowly: 60 s for all requests were over"),
    ):
        caller.get(server.url + PATH, params=DAY, headers={"auth-token": TOKEN})


def test_a_key_does_not_travel_unencrypted() -> None:
    with Caller() as caller, pytest.raises(InputError, match=r"would get a key unencrypted; give an https://"):
        caller.get("http://example.org/", headers={"auth-token": TOKEN})
