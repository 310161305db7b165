"""A short job in an idle board's books, whose sensors are as old and as partial as real ones: what is its is known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.contract import Device, Method, Reading
from workers.telemetry.board import Board
from workers.telemetry.booking import Claim, DeviceBook
from workers.telemetry.profiles import board_profile

S, MS = 1_000_000_000, 1_000_000
START = 1_700_000_000 * S
JOB = Claim(lease_id="lease", job_id="a", attempt=1, phase=None)


def book_of(board: Board, *, looks_ns: list[int], opens_ns: int, closes_ns: int) -> DeviceBook:
    """The books of a board that is looked at then, and held between."""
    book = DeviceBook(Device(uuid="g", index=0, model="any", method=Method.COUNTER, power_window_ms=0))
    edges = {opens_ns: [JOB], closes_ns: []}
    for now_ns in sorted({*looks_ns, *edges}):
        counter, power = board.counter_mj(now_ns), board.sampled_mw(now_ns)
        book.observe(Reading(device="g", time_ns=now_ns, energy_mj=counter, power_mw=power))
        if now_ns in edges:
            book.edge(now_ns, edges[now_ns])
    return book


@pytest.mark.parametrize("model", ["H100", "A40", "V100"])
@pytest.mark.parametrize(("length_ms", "percent"), [(200, 5), (5000, 0.5)])
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 999), st.lists(st.integers(0, 5), min_size=90, max_size=90))
def test_a_job_in_an_idle_board_is_booked_what_it_drew(model, length_ms, percent, offset_ms, into_ms, late_ms):
    board = Board(board_profile(model), now_ns=START, offset_ns=offset_ms * MS)
    opens_ns = START + 2 * S + into_ms * MS
    closes_ns = opens_ns + length_ms * MS
    board.load(opens_ns, {1: 1.0})
    board.load(closes_ns, {})
    looks_ns = [START + (100 * number + late) * MS for number, late in enumerate(late_ms)]
    book = book_of(board, looks_ns=looks_ns, opens_ns=opens_ns, closes_ns=closes_ns)
    true_mj = board.true_energy_pj(opens_ns, closes_ns) / 10**9
    assert abs(book.booked_by_lease["lease"] / true_mj - 1) * 100 < percent
    assert book.booked_mj == sum(entry.energy_mj for entry in book.take())
