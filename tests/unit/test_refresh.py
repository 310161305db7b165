"""How often a counter refreshes, learned from looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.telemetry.refresh import CLOSE_NS, RefreshPeriod
from workers.units import NS_PER_MS


def look_at(period: RefreshPeriod, times_ms: list[float], *, refresh_ms: float, offset_ms: float = 0) -> None:
    """Looks at a counter that is refreshed at ``offset_ms`` and every ``refresh_ms`` after."""
    shown = None
    for time_ms in times_ms:
        beat = (time_ms - offset_ms) // refresh_ms
        period.look(round(time_ms * NS_PER_MS), moved=shown is not None and beat != shown)
        shown = beat


def test_nothing_is_known_before_two_refreshes_were_seen_closely() -> None:
    period = RefreshPeriod()
    look_at(period, [0, 3, 6, 9], refresh_ms=100, offset_ms=5)
    assert period.known_ns is None


def test_looks_far_apart_tell_nothing() -> None:
    period = RefreshPeriod()
    look_at(period, [100.0 * number for number in range(100)], refresh_ms=100, offset_ms=50)
    assert period.known_ns is None


def test_a_refresh_that_may_have_been_missed_between_two_tells_nothing() -> None:
    period = RefreshPeriod()
    close = [number * 3.0 for number in range(20)]
    look_at(period, [*close, *(115 + time for time in close)], refresh_ms=20, offset_ms=15)
    assert period.known_ns is not None
    assert abs(period.known_ns - 20 * NS_PER_MS) < CLOSE_NS


def test_bounds_that_contradict_replace_what_was_known() -> None:
    period = RefreshPeriod()
    look_at(period, [number * 2.0 for number in range(150)], refresh_ms=100, offset_ms=5)
    look_at(period, [1000 + number * 2.0 for number in range(100)], refresh_ms=20, offset_ms=1005)
    assert period.known_ns is not None
    assert abs(period.known_ns - 20 * NS_PER_MS) <= 2 * NS_PER_MS


def test_after_a_restart_the_refresh_before_it_is_no_beginning() -> None:
    period = RefreshPeriod()
    period.look(0, moved=False)
    period.look(NS_PER_MS, moved=True)
    period.restart()
    period.look(5 * NS_PER_MS, moved=True)
    assert period.known_ns is None


@pytest.mark.parametrize("refresh_ms", [20, 25, 50, 100])
@given(st.integers(0, 99), st.lists(st.sampled_from([2, 3, 4]), min_size=150, max_size=150))
def test_close_looks_learn_the_period_to_within_their_distance(refresh_ms, offset_ms, steps_ms):
    period = RefreshPeriod()
    times_ms = [float(sum(steps_ms[:number])) for number in range(len(steps_ms))]
    look_at(period, times_ms, refresh_ms=refresh_ms, offset_ms=offset_ms)
    assert period.known_ns is not None
    assert abs(period.known_ns - refresh_ms * NS_PER_MS) <= 4 * NS_PER_MS
