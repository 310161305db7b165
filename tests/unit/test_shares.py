"""Use fades: what a user had weighs half as much a half-life later, and what has not happened weighs nothing."""

import math

import pytest

from orchestrator.scheduling.shares import DAY_S, decayed

NOW_NS = 1_800_000_000_000_000_000
DAY_NS = 86_400_000_000_000


def test_a_span_that_is_yet_to_come_counts_as_nothing():
    assert decayed([("ann", 4.0, NOW_NS + 5, None), ("ann", 1.0, NOW_NS + 5, NOW_NS + 9)], NOW_NS) == {"ann": 0.0}


def test_nobody_without_a_span_is_in_it():
    assert decayed([], NOW_NS) == {}


def test_a_short_span_just_now_is_its_gpu_seconds():
    assert decayed([("ann", 2.0, NOW_NS - 1_000_000_000, NOW_NS)], NOW_NS)["ann"] == pytest.approx(2.0, rel=1e-5)


def test_the_same_span_a_half_life_ago_weighs_half():
    spans = [("new", 3.0, NOW_NS - 7_000, NOW_NS), ("old", 3.0, NOW_NS - DAY_NS - 7_000, NOW_NS - DAY_NS)]
    found = decayed(spans, NOW_NS)
    assert found["old"] == pytest.approx(found["new"] / 2, rel=1e-12)


def test_a_gpu_held_for_ever_weighs_a_half_life_over_ln_2():
    found = decayed([("ann", 1.0, NOW_NS - 400 * DAY_NS, None)], NOW_NS)
    assert found["ann"] == pytest.approx(DAY_S / math.log(2), rel=1e-12)


def test_a_span_in_two_pieces_is_the_span():
    whole = decayed([("ann", 1.0, NOW_NS - 9 * DAY_NS, NOW_NS - DAY_NS)], NOW_NS)
    cut_ns = NOW_NS - 4 * DAY_NS
    pieces = decayed([("ann", 1.0, NOW_NS - 9 * DAY_NS, cut_ns), ("ann", 1.0, cut_ns, NOW_NS - DAY_NS)], NOW_NS)
    assert pieces["ann"] == pytest.approx(whole["ann"], rel=1e-12)


def test_the_half_life_is_the_callers():
    spans = [("ann", 1.0, NOW_NS - 11_000_000_000, NOW_NS - 10_000_000_000)]
    assert decayed(spans, NOW_NS, half_life_s=10.0)["ann"] < decayed(spans, NOW_NS)["ann"]


def test_users_are_apart_and_one_may_be_unknown():
    spans = [("ann", 1.0, NOW_NS - 10, None), (None, 1.0, NOW_NS - 10, None)]
    assert set(decayed(spans, NOW_NS)) == {"ann", None}
