"""Which GPUs are free: nothing that is held is given again, and nothing that is free is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.gpus import Held, free_gpus
from orchestrator.scheduling.room import UNITS

SHARES = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.7, 0.75])


def test_a_half_that_is_held_leaves_a_half() -> None:
    assert free_gpus(2, [Held(gpus=0.5)], free=2) == (1, (0.5,))
    assert free_gpus(2, [Held(gpus=0.5), Held(gpus=0.5)], free=2) == (1, ())
    assert free_gpus(2, [Held(gpus=0.5), Held(gpus=0.75), Held(gpus=0.5)], free=2) == (0, (0.25,))


def test_three_tenths_are_exact() -> None:
    assert free_gpus(1, [Held(gpus=0.1)] * 3, free=1) == (0, (0.7,))
    assert free_gpus(1, [Held(gpus=0.1)] * 10, free=1) == (0, ())


def test_the_gpu_that_ray_gave_counts_and_not_the_one_it_might_have() -> None:
    """Two jobs that began beside others which have left: each keeps its own GPU from being wholly free."""
    assert free_gpus(2, [Held(gpus=0.5, device="0"), Held(gpus=0.5, device="1")], free=1) == (0, (0.5, 0.5))
    assert free_gpus(2, [Held(gpus=0.5), Held(gpus=0.5, device="1")], free=1) == (1, ())


def test_what_others_hold_by_rays_books_is_not_free() -> None:
    assert free_gpus(2, [], free=0.5) == (0, ())
    assert free_gpus(2, [Held(gpus=0.5)], free=0.5) == (0, (0.5,))
    assert free_gpus(2, [Held(gpus=0.5)], free=0.25) == (0, ())
    assert free_gpus(1, [Held(gpus=1)], free=1) == (0, ())


def test_more_held_than_there_is_leaves_nothing() -> None:
    assert free_gpus(1, [Held(gpus=2)], free=1) == (0, ())
    assert free_gpus(0, [], free=0) == (0, ())


@given(whole=st.lists(st.integers(0, 3), max_size=3), parts=st.lists(SHARES, max_size=8), free=st.floats(0, 16))
def test_what_is_free_and_what_is_held_never_exceed_what_there_is(
    whole: list[int], parts: list[float], free: float
) -> None:
    held = [Held(gpus=gpus) for gpus in (*whole, *parts)]
    total = sum(whole) + len(parts)
    gpus, shares = free_gpus(total, held, free=free)
    units = [round(share * UNITS) for share in (*shares, *parts)]
    assert (gpus + sum(whole)) * UNITS + sum(units) <= total * UNITS
    assert gpus * UNITS + sum(round(share * UNITS) for share in shares) <= round(free * UNITS)
    assert all(0 < share < 1 for share in shares)


@given(whole=st.lists(st.integers(0, 3), max_size=3), parts=st.lists(SHARES, max_size=8))
def test_where_nobody_else_works_nothing_that_is_free_is_lost(whole: list[int], parts: list[float]) -> None:
    held = [Held(gpus=gpus) for gpus in (*whole, *parts)]
    total = sum(whole) + len(parts)
    gpus, shares = free_gpus(total, held, free=total)
    units = sum(round(share * UNITS) for share in (*shares, *parts))
    assert (gpus + sum(whole)) * UNITS + units == total * UNITS
