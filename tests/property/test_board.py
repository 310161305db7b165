"""The physics conserves energy whatever is drawn, and its sensors show what they say they show."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.telemetry.board import Board
from workers.telemetry.power_trace import Piece, Timeline, Trace
from workers.telemetry.profiles import PROFILES, board_profile

S, MS = 1_000_000_000, 1_000_000
START = 1_700_000_000 * S

pieces = st.builds(
    Piece,
    duration_ns=st.integers(1, 3 * S),
    start_mw=st.integers(0, 700_000),
    end_mw=st.integers(0, 700_000),
)
traces = st.builds(Trace, st.lists(pieces, min_size=1, max_size=5).map(tuple), st.booleans())
profiles = st.sampled_from(sorted(PROFILES)).map(board_profile)


@settings(deadline=None)
@given(traces, st.lists(st.integers(0, 20 * S), min_size=2, max_size=10))
def test_energies_over_adjoining_spans_add_up_exactly(trace, cuts):
    cuts = sorted(cuts)
    parts = [trace.energy_pj(b) - trace.energy_pj(a) for a, b in pairwise(cuts)]
    assert sum(parts) == trace.energy_pj(cuts[-1]) - trace.energy_pj(cuts[0])
    assert min(parts) >= 0


@settings(deadline=None)
@given(traces, st.integers(0, 20 * S), st.integers(0, 700_000))
def test_a_clipped_trace_is_the_trace_below_its_limit(trace, at_ns, limit_mw):
    clipped, wanted = trace.clipped(limit_mw).power_mw(at_ns), trace.power_mw(at_ns)
    assert clipped <= limit_mw
    # A ramp is cut at a whole nanosecond, so its pieces' slopes may differ by a rounding.
    slope = max(abs(piece.end_mw - piece.start_mw) // piece.duration_ns for piece in trace.pieces)
    assert abs(clipped - min(wanted, limit_mw)) <= 2 * slope + 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10 * S), traces), max_size=6), st.lists(st.integers(0, 12 * S), min_size=1))
def test_forgetting_the_past_changes_no_later_sum(changes, looks):
    kept, forgetful = (Timeline(START, Trace.constant(1000)) for _ in range(2))
    for line in (kept, forgetful):
        for at_ns, trace in sorted(changes, key=lambda change: change[0]):
            line.begin(START + at_ns, trace)
    forgetful.forget(START + min(looks))
    assert [forgetful.energy_pj(START + t) for t in looks] == [kept.energy_pj(START + t) for t in looks]


@settings(max_examples=300, deadline=None)
@given(profiles, traces, st.integers(0, 99 * MS), st.integers(0, 10 * S))
def test_the_counter_is_exact_at_its_last_refresh_and_never_ahead(profile, trace, offset_ns, at_ns):
    board = Board(profile, now_ns=START, counted_mj=5, offset_ns=offset_ns)
    board.draw(START, trace)
    refreshed_ns = board.refreshed_ns(START + at_ns)
    assert board.counter_mj(START + at_ns) == 5 + board.true_energy_pj(START, refreshed_ns) // 10**9
    assert 0 <= START + at_ns - refreshed_ns < max(profile.refresh_ms * MS, offset_ns + 1)


@settings(deadline=None)
@given(profiles, st.lists(st.tuples(st.integers(1, S), st.floats(0, 2), st.integers(0, 3)), max_size=20))
def test_a_board_under_load_never_draws_above_its_limit_or_below_idle(profile, steps):
    board, now_ns = Board(profile, now_ns=START), START
    for elapsed_ns, share, limit_step in steps:
        board.load(now_ns, {1: share})
        span_mw = profile.tdp_w * 1000 - profile.min_limit_w * 1000
        board.set_limit(now_ns, profile.min_limit_w * 1000 + span_mw * limit_step // 3)
        drawn_pj = board.true_energy_pj(now_ns, now_ns + elapsed_ns)
        assert board.idle_mw * elapsed_ns <= drawn_pj <= board.limit_mw * elapsed_ns
        now_ns += elapsed_ns


def test_part_time_sampling_sees_nothing_of_what_falls_between_its_windows():
    board = Board(board_profile("H100"), now_ns=START)
    burst = (
        Piece(duration_ns=70 * MS, start_mw=700_000, end_mw=700_000),
        Piece(duration_ns=30 * MS, start_mw=70_000, end_mw=70_000),
    )
    board.draw(START, Trace(burst, repeats=True))
    at_ns = START + 5 * S
    assert board.sampled_mw(at_ns) == board.averaged_mw(at_ns) == 70_000
    assert board.true_energy_pj(START, at_ns) == 5 * S * (700_000 * 70 + 70_000 * 30) // 100
    assert board.counter_mj(at_ns) == 5 * (700 * 70 + 70 * 30) * 10


def test_power_usage_is_a_second_old_mean_on_ampere_and_the_last_sample_before_it():
    step = Trace((Piece(duration_ns=S, start_mw=50_000, end_mw=50_000), *Trace.constant(250_000).pieces))
    told = {}
    for model in ("A40", "V100", "A100-80GB"):
        board = Board(board_profile(model), now_ns=START)
        board.draw(START, step)
        told[model] = board.usage_mw(START + S + S // 2)
    assert told == {"A40": 150_000, "V100": 250_000, "A100-80GB": 250_000}


def test_a_reset_counter_begins_at_zero_and_a_board_without_one_has_none():
    board = Board(board_profile("V100"), now_ns=START, counted_mj=10**9)
    board.draw(START, Trace.constant(100_000))
    board.reset(START + S)
    assert board.counter_mj(START + S - 1) == 10**9 + 98_000
    assert board.counter_mj(START + S) == 0
    assert board.counter_mj(START + 2 * S) == 100_000
    pascal = dataclasses.replace(board_profile("V100"), has_counter=False)
    assert Board(pascal, now_ns=START).counter_mj(START + S) is None


def test_a_limit_set_in_the_course_of_a_trace_clips_what_follows_only():
    board = Board(board_profile("H100"), now_ns=START)
    board.draw(START, Trace.square(low_mw=100_000, high_mw=600_000, period_ns=2 * S))
    board.set_limit(START + 3 * S, 300_000)
    energies = [board.true_energy_pj(START + i * S, START + (i + 1) * S) // 10**12 for i in range(4)]
    assert energies == [100, 600, 100, 300]
    assert board.speed < board_profile("H100").speed
