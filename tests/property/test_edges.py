"""A job in a board's books, whose sensors are as old and as partial as real ones: what is its is known."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.contract import Device, Method, Reading
from workers.telemetry.board import Board
from workers.telemetry.booking import DeviceBook
from workers.telemetry.power_trace import Trace
from workers.telemetry.profiles import board_profile
from workers.telemetry.stretches import Claim

S, MS = 1_000_000_000, 1_000_000
START = 1_700_000_000 * S
JOB = Claim(lease_id="lease", job_id="a", attempt=1, phase=None)
LATE_MS = st.lists(st.integers(0, 5), min_size=90, max_size=90)
CLOSE_MS = 3


def told(
    board: Board,
    *,
    late_ms: list[int],
    opens_ns: int,
    closes_ns: int,
    is_watched: bool,
    deaf_ns: tuple[int, int] = (0, 0),
) -> DeviceBook:
    """The books of a board that is looked at ten times a second, and closely where they ask for it, and held between.

    Between the times ``deaf_ns`` nothing can be read.
    """
    book = DeviceBook(
        Device(uuid="g", index=0, model="any", method=Method.COUNTER, power_window_ms=0), is_watched=is_watched
    )
    edges = {opens_ns: [JOB], closes_ns: []}
    looks = sorted({START + (100 * number + late) * MS for number, late in enumerate(late_ms)} | edges.keys())
    now_ns = looks[0]
    while now_ns <= looks[-1]:
        if not deaf_ns[0] <= now_ns < deaf_ns[1]:
            counter, power = board.counter_mj(now_ns), board.sampled_mw(now_ns)
            book.observe(Reading(device="g", time_ns=now_ns, energy_mj=counter, power_mw=power))
        if now_ns in edges:
            book.edge(now_ns, edges[now_ns])
        next_ns = looks[bisect.bisect(looks, now_ns)] if now_ns < looks[-1] else now_ns + 1
        now_ns = min(next_ns, now_ns + CLOSE_MS * MS) if book.wants_look(now_ns) else next_ns
    return book


def percent_off(book: DeviceBook, board: Board, opens_ns: int, closes_ns: int) -> float:
    true_mj = board.true_energy_pj(opens_ns, closes_ns) / 10**9
    assert book.booked_mj == sum(entry.energy_mj for entry in book.take())
    return abs(book.booked_by_lease["lease"] / true_mj - 1) * 100


@pytest.mark.parametrize("model", ["H100", "A40", "V100"])
@pytest.mark.parametrize(
    ("length_ms", "is_watched", "percent"), [(200, False, 5), (5000, False, 0.5), (200, True, 0.5), (5000, True, 0.05)]
)
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 999), LATE_MS)
def test_a_job_in_an_idle_board_is_booked_what_it_drew(
    model, length_ms, is_watched, percent, offset_ms, into_ms, late_ms
):
    board = Board(board_profile(model), now_ns=START, offset_ns=offset_ms * MS)
    opens_ns = START + 2 * S + into_ms * MS
    closes_ns = opens_ns + length_ms * MS
    board.load(opens_ns, {1: 1.0})
    board.load(closes_ns, {})
    book = told(board, late_ms=late_ms, opens_ns=opens_ns, closes_ns=closes_ns, is_watched=is_watched)
    assert percent_off(book, board, opens_ns, closes_ns) < percent


@pytest.mark.parametrize("model", ["H100", "A40", "V100"])
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 999), LATE_MS)
def test_a_job_on_a_board_that_is_busy_before_and_after_is_booked_within_a_thousandth(
    model, offset_ms, into_ms, late_ms
):
    board = Board(board_profile(model), now_ns=START, offset_ns=offset_ms * MS)
    board.draw(START, Trace.constant(250_000))
    opens_ns = START + 2 * S + into_ms * MS
    closes_ns = opens_ns + 5 * S
    book = told(board, late_ms=late_ms, opens_ns=opens_ns, closes_ns=closes_ns, is_watched=True)
    assert percent_off(book, board, opens_ns, closes_ns) < 0.1


@pytest.mark.parametrize("model", ["H100", "A40", "V100"])
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 999), LATE_MS, st.integers(0, 60), st.integers(0, 60))
def test_an_edge_at_which_the_board_cannot_be_read_is_known_from_the_refresh_after_it(
    model, offset_ms, into_ms, late_ms, before_ms, after_ms
):
    board = Board(board_profile(model), now_ns=START, offset_ns=offset_ms * MS)
    board.draw(START, Trace.constant(250_000))
    opens_ns = START + 2 * S + into_ms * MS
    closes_ns = opens_ns + 5 * S
    book = told(
        board,
        late_ms=late_ms,
        opens_ns=opens_ns,
        closes_ns=closes_ns,
        is_watched=True,
        deaf_ns=(opens_ns - before_ms * MS, opens_ns + after_ms * MS),
    )
    # Half a refresh and a look in 5 s, where a refresh may have come just before or just after the last look.
    assert percent_off(book, board, opens_ns, closes_ns) < 1.1


@pytest.mark.parametrize("model", ["H100", "A40", "V100"])
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 999), LATE_MS, st.integers(500, 4500))
def test_a_counter_that_starts_anew_in_the_middle_of_a_job_costs_it_nothing(
    model, offset_ms, into_ms, late_ms, reset_ms
):
    board = Board(board_profile(model), now_ns=START, offset_ns=offset_ms * MS, counted_mj=10**9)
    board.draw(START, Trace.constant(250_000))
    opens_ns = START + 2 * S + into_ms * MS
    closes_ns = opens_ns + 5 * S
    board.reset(opens_ns + reset_ms * MS)
    book = told(board, late_ms=late_ms, opens_ns=opens_ns, closes_ns=closes_ns, is_watched=True)
    assert percent_off(book, board, opens_ns, closes_ns) < 1.1
