"""Nobody waits for a driver that hangs for ever."""

from __future__ import annotations

import threading

import pytest

from tests.clusters import wait_until
from workers.errors import MeterError
from workers.telemetry.patience import BoundedLock, Watchdog


def test_a_lock_that_is_held_too_long_is_an_error_with_the_remedy_and_free_again_afterwards() -> None:
    lock, held, done = BoundedLock(timeout_s=0.01), threading.Event(), threading.Event()

    def hang() -> None:
        with lock, lock:
            held.set()
            done.wait()

    driver = threading.Thread(target=hang)
    driver.start()
    held.wait()
    with pytest.raises(MeterError, match=r"a driver has not answered for 0.01 s\. Check that `nvidia-smi` works"):
        lock.__enter__()
    done.set()
    driver.join()
    with lock:
        assert not driver.is_alive()


def test_work_that_gets_no_further_ends_the_process_once(capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    Watchdog(0.02, end=ended.append)
    wait_until(lambda: ended == [1], what="the end")
    assert capsys.readouterr().err == "a driver has not answered for 0.02 s: this agent ends.\n"


def test_work_that_goes_on_or_is_over_ends_nothing() -> None:
    ended: list[int] = []
    watchdog = Watchdog(0.5, end=ended.append)
    for _ in range(20):
        watchdog.alive()
        threading.Event().wait(0.05)
    watchdog.stop()
    assert ended == []
