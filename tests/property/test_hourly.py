"""The hourly join for any job and any series: no millijoule is lost, and the yearly result is a special case."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.carbon.hourly import NS_PER_HOUR, Draw, HourlySeries, energy_by_hour, weigh
from orchestrator.carbon.intensity import co2e_kg
from workers.units import apportion, mj_to_kwh

FIRST_NS = 473_364 * NS_PER_HOUR
FIGURES = st.floats(0, 2000, allow_subnormal=False)


@st.composite
def draws(draw: st.DrawFn) -> Draw:
    start_ns = FIRST_NS + draw(st.integers(0, 5 * NS_PER_HOUR))
    return start_ns, start_ns + draw(st.integers(0, 30 * NS_PER_HOUR)), draw(st.integers(0, 10**12))


JOBS = st.lists(draws(), max_size=8)
SERIES = st.dictionaries(st.integers(473_364, 473_400), FIGURES).map(
    lambda figures: HourlySeries(source="any", g_per_kwh=figures)
)


@given(JOBS)
def test_the_hours_add_up_to_the_whole_exactly(job: list[Draw]) -> None:
    assert sum(energy_by_hour(job).values()) == sum(energy_mj for _, _, energy_mj in job)


@given(JOBS, FIGURES, st.floats(1, 3))
def test_a_constant_series_is_the_yearly_result_to_the_last_digit(job: list[Draw], figure: float, pue: float) -> None:
    by_hour = energy_by_hour(job)
    constant = HourlySeries(source="any", g_per_kwh=dict.fromkeys(by_hour, figure))
    energy_kwh = mj_to_kwh(sum(by_hour.values()))
    mean = weigh(by_hour, constant, yearly_g_per_kwh=figure).g_per_kwh
    assert co2e_kg(energy_kwh, pue, mean) == co2e_kg(energy_kwh, pue, figure)


@given(JOBS, SERIES, FIGURES, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(
    job: list[Draw], series: HourlySeries, yearly: float, chance: random.Random
) -> None:
    shuffled = list(job)
    chance.shuffle(shuffled)
    assert weigh(energy_by_hour(shuffled), series, yearly) == weigh(energy_by_hour(job), series, yearly)


@given(draws(), st.lists(st.integers(0, 35), max_size=6))
def test_an_entry_cut_at_full_hours_is_the_same_entry(whole: Draw, hours: list[int]) -> None:
    start_ns, end_ns, _ = whole
    by_hour = energy_by_hour([whole])
    inside = {FIRST_NS + hour * NS_PER_HOUR for hour in hours}
    edges = sorted({start_ns, end_ns} | {edge for edge in inside if start_ns < edge < end_ns})
    pieces = [
        (a, b, sum(mj for hour, mj in by_hour.items() if a <= max(hour * NS_PER_HOUR, start_ns) < b))
        for a, b in itertools.pairwise(edges)
    ]
    assert energy_by_hour(pieces or [whole]) == by_hour


@given(draws(), st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_an_entry_cut_anywhere_moves_less_than_a_millijoule_a_cut(whole: Draw, weights: list[int]) -> None:
    start_ns, end_ns, energy_mj = whole
    lengths_ns = apportion(end_ns - start_ns, weights)
    pieces, at_ns = [], start_ns
    for length_ns, part_mj in zip(lengths_ns, apportion(energy_mj, lengths_ns), strict=True):
        pieces.append((at_ns, at_ns + length_ns, part_mj))
        at_ns += length_ns
    cut, uncut = energy_by_hour(pieces), energy_by_hour([whole])
    assert sum(cut.values()) == energy_mj
    if end_ns > start_ns:
        assert all(abs(cut.get(hour, 0) - mj) <= len(weights) for hour, mj in uncut.items())


@given(JOBS, SERIES, FIGURES)
def test_the_mean_lies_between_the_lowest_and_the_highest_hour(
    job: list[Draw], series: HourlySeries, yearly: float
) -> None:
    by_hour = energy_by_hour(job)
    used = [series.g_per_kwh.get(hour, yearly) for hour in by_hour] or [yearly]
    assert min(used) <= weigh(by_hour, series, yearly).g_per_kwh <= max(used)
