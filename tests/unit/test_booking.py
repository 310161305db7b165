"""The books of one device, by hand: each case small enough to check on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.metering import CLEAN, at, brief, claim, device, look
from workers.contract import Method, Phase, Quality
from workers.telemetry.booking import DeviceBook, merge


def book(method: Method = Method.COUNTER) -> DeviceBook:
    return DeviceBook(device(method))


def test_nothing_is_booked_before_the_counter_moves() -> None:
    told = book()
    assert told.settled_ns == 0
    for milliseconds in (0, 50, 100):
        told.observe(look(milliseconds, 5_000, 100))
    assert (told.take(), told.booked_mj, told.settled_ns) == ([], 0, at(0))


def test_a_reset_is_bridged_by_power_and_flagged() -> None:
    told = book()
    told.observe(look(0, 9_000_000, 100))
    told.observe(look(1000, 9_100_000, 100))
    told.observe(look(2000, 7, 100))
    told.observe(look(3000, 90_007, 80))
    clean, bridged, after = told.take()
    assert (clean.energy_mj, clean.method, clean.quality) == (100_000, Method.COUNTER, CLEAN)
    # 100 W for a second; the counter's own 7 mJ since its restart are part of it.
    assert (bridged.energy_mj, bridged.method, bridged.quality) == (100_000, Method.INTEGRATED, {Quality.RESET})
    assert (after.energy_mj, after.method, after.quality) == (90_000, Method.COUNTER, CLEAN)
    assert told.booked_mj == 290_000


def test_a_reset_while_power_is_unknown_books_what_the_new_count_proves_and_says_there_is_a_gap() -> None:
    told = book()
    told.observe(look(0, 9_000_000, None))
    told.observe(look(1000, 7, None))
    (bridged,) = told.take()
    assert (bridged.energy_mj, bridged.method) == (7, Method.COUNTER)
    assert bridged.quality == {Quality.RESET, Quality.GAP}


def test_a_gap_is_flagged_and_its_energy_kept() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(2000, 200_000, 100))
    told.observe(look(4000.001, 400_000, 100))
    whole, gap = told.take()
    assert (whole.energy_mj, whole.quality) == (200_000, CLEAN)
    assert (gap.energy_mj, gap.quality) == (200_000, {Quality.GAP})


def test_a_gap_is_flagged_even_when_the_counter_moves_only_at_a_later_look() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(5000, 0, 100))
    told.observe(look(5100, 510_000, 100))
    (entry,) = told.take()
    assert (entry.energy_mj, entry.quality) == (510_000, {Quality.GAP})


def test_a_counter_that_is_silent_for_a_moment_is_waited_for() -> None:
    told = book()
    told.observe(look(0, 1_000, 100))
    told.observe(look(1000, None, 100))
    assert told.take() == []
    told.observe(look(2000, 201_000, 100))
    assert brief(told.take()) == [(0, 1950, 200_000, None)]


def test_a_counter_that_stays_silent_is_replaced_by_power_and_flagged_until_it_is_back() -> None:
    told = book()
    told.observe(look(0, 1_000, 100))
    told.observe(look(1500, None, 100))
    told.observe(look(3000, None, 100))
    told.observe(look(4000, 999_000, 100))
    told.observe(look(5000, 1_099_000, 100))
    fallback, counted = told.take()
    assert (fallback.energy_mj, fallback.method, fallback.quality) == (400_000, Method.INTEGRATED, {Quality.FALLBACK})
    assert (counted.energy_mj, counted.method, counted.quality) == (100_000, Method.COUNTER, CLEAN)


def test_a_device_that_tells_nothing_for_a_while_is_flagged_and_never_booked_as_zero_meanwhile() -> None:
    told = book(Method.INTEGRATED)
    told.observe(look(0, None, 100))
    told.observe(look(1000, None, None))
    assert told.take() == []
    told.observe(look(2000, None, 100))
    told.observe(look(3000, None, 100))
    unknown, known = told.take()
    assert (unknown.start_ns, unknown.end_ns, unknown.quality) == (at(0), at(2000), {Quality.GAP})
    assert (known.energy_mj, known.quality) == (100_000, CLEAN)


def test_a_counter_that_was_silent_from_the_start_is_taken_up_when_it_speaks_without_any_power() -> None:
    told = book()
    told.observe(look(0, None, None))
    told.observe(look(100, 5_000, None))
    told.observe(look(200, 6_000, None))
    first, counted = told.take()
    assert (first.energy_mj, first.quality) == (0, {Quality.FALLBACK, Quality.GAP})
    assert (counted.energy_mj, counted.method) == (1_000, Method.COUNTER)


def test_a_clock_set_back_is_taken_as_standing_still() -> None:
    told = book()
    told.observe(look(1000, 0, 100))
    told.edge(at(1000), [claim("a")])
    told.observe(look(2000, 100, 100))
    told.edge(at(500), [claim("b")])
    told.observe(look(600, 150, 100))
    told.observe(look(3000, 250, 100))
    assert brief(told.take()) == [(1000, 2000, 150, "a"), (2000, 2950, 100, "b")]


def test_an_increment_that_spans_an_edge_is_split_by_the_power_on_each_side() -> None:
    told = book()
    told.observe(look(0, 0, 70))
    told.observe(look(40, 0, 70))
    told.edge(at(40), [claim("a")])
    told.observe(look(60, 0, 700))
    told.observe(look(100, 30_800, 700))
    # The counter refreshed between 60 and 100 ms: at 80. Until then 40 ms at idle's 70 W and 40 ms at the job's 700 W.
    assert brief(told.take()) == [(0, 40, 2_800, None), (40, 80, 28_000, "a")]


def test_what_was_drawn_before_the_last_refresh_of_a_job_is_the_jobs_though_it_shows_later() -> None:
    told = book()
    told.observe(look(0, 0, 700))
    told.edge(at(0), [claim("a")])
    told.observe(look(60, 0, 700))
    told.edge(at(60), [])
    told.observe(look(80, 0, 70))
    told.observe(look(100, 44_100, 70))
    # 60 ms at 700 W, then 30 ms at 70 W until the refresh at 90.
    assert brief(told.take()) == [(0, 60, 42_000, "a"), (60, 90, 2_100, None)]


def test_a_counter_is_never_taken_for_older_than_its_slowest_refresh() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(1000, 100_000, 100))
    assert told.settled_ns == at(950)


def test_an_edge_after_the_refresh_waits_for_the_next() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(70), [claim("a")])
    told.observe(look(100, 5_000, 100))
    assert brief(told.take()) == [(0, 50, 5_000, None)]
    told.observe(look(110, 15_000, 100))
    # Refreshes at 50 and 105 ms; the job came at 70.
    assert brief(told.take()) == [(50, 70, 3_636, None), (70, 105, 6_364, "a")]


def test_the_split_scales_to_what_the_counter_says_and_adds_up() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(30), [claim("a", Phase.LOAD)])
    told.edge(at(60), [claim("a", Phase.TRAIN)])
    told.observe(look(80, 0, 100))
    told.observe(look(100, 100, 100))
    # Three equal parts of 100 mJ: integers that add up, the odd one to the earliest.
    entries = told.take()
    assert brief(entries) == [(0, 30, 34, None), (30, 60, 33, "a"), (60, 90, 33, "a")]
    assert [entry.phase for entry in entries] == [None, Phase.LOAD, Phase.TRAIN]


def test_where_power_is_unknown_an_increment_is_split_by_time() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(50, 0, 100))
    told.edge(at(50), [claim("a")])
    told.observe(look(80, 0, None))
    told.observe(look(100, 900, None))
    assert brief(told.take()) == [(0, 50, 500, None), (50, 90, 400, "a")]


def test_an_edge_from_before_the_first_look_counts_from_the_first_look() -> None:
    told = book()
    told.edge(at(-100), [claim("a")])
    told.observe(look(0, 0, 100))
    told.observe(look(100, 10, 100))
    assert brief(told.take()) == [(0, 50, 10, "a")]


def test_a_lease_shorter_than_a_refresh_gets_its_part() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(40), [claim("a")])
    told.edge(at(60), [])
    told.observe(look(80, 0, 100))
    told.observe(look(100, 9_000, 100))
    assert brief(told.take()) == [(0, 40, 4_000, None), (40, 60, 2_000, "a"), (60, 90, 3_000, None)]


def test_growth_within_one_instant_goes_to_whoever_holds_the_device() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(0), [claim("a")])
    told.observe(look(0, 5, 100))
    assert brief(told.take()) == [(0, 0, 5, "a")]


def test_a_shared_device_is_split_equally_and_says_so() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(0), [claim("a"), claim("b"), claim("c")])
    told.observe(look(100, 10_001, 100))
    entries = told.take()
    assert brief(entries) == [(0, 50, 3_334, "a"), (0, 50, 3_334, "b"), (0, 50, 3_333, "c")]
    assert {entry.share for entry in entries} == {1 / 3}
    assert {entry.quality for entry in entries} == {frozenset({Quality.SHARED})}
    assert told.booked_by_lease == {"lease-a": 3_334, "lease-b": 3_334, "lease-c": 3_333}


def test_an_integrated_device_keeps_what_is_less_than_a_millijoule() -> None:
    told = book(Method.INTEGRATED)
    # 7 mW for 10 ms between two looks are 0.07 mJ.
    for looks in range(11):
        told.observe(look(looks * 10, None, 0.007))
    assert told.booked_mj == 0
    for looks in range(11, 151):
        told.observe(look(looks * 10, None, 0.007))
    assert told.booked_mj == 10
    (entry,) = told.take()
    assert (entry.energy_mj, entry.method, entry.quality) == (10, Method.INTEGRATED, CLEAN)


def test_entries_are_handed_over_once() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(100, 10, 100))
    assert len(told.take()) == 1
    assert told.take() == []
    assert told.booked_mj == 10


def test_an_entry_says_what_it_is_of() -> None:
    told = DeviceBook(device(Method.SIMULATED))
    told.observe(look(0, 0, 100))
    told.edge(at(0), [claim("a", Phase.EVALUATE)])
    told.observe(look(100, 10, 100))
    (entry,) = told.take()
    assert (entry.device, entry.model, entry.kind, entry.method) == ("GPU-1", "H100", "gpu", Method.SIMULATED)
    assert (entry.job_id, entry.attempt, entry.phase, entry.share) == ("a", 1, Phase.EVALUATE, 1.0)


def test_neighbours_of_one_account_are_merged_and_others_are_not() -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.edge(at(0), [claim("a")])
    told.observe(look(100, 10, 100))
    told.observe(look(200, 30, 100))
    told.edge(at(200), [claim("a"), claim("b")])
    told.observe(look(300, 40, 100))
    assert brief(told.take()) == [(0, 200, 35, "a"), (200, 250, 3, "a"), (200, 250, 2, "b")]


@pytest.mark.parametrize("quality", [{Quality.GAP}, {Quality.RESET}])
def test_entries_of_different_quality_stay_apart(quality: set[Quality]) -> None:
    told = book()
    told.observe(look(0, 0, 100))
    told.observe(look(100, 10, 100))
    (clean,) = told.take()
    flagged = replace(clean, start_ns=clean.end_ns, end_ns=at(200), quality=frozenset(quality))
    assert merge([clean, flagged]) == [clean, flagged]
