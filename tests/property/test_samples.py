"""Laws of a sampled counter: order and repeats do not matter, parts add up, and nothing is lost to a gap inside."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.samples import CounterCurve, Sample, Series, put_together
from workers.units import NS_PER_S

TOLERANCE_NS = 10**12
steps = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 10_000)), min_size=2, max_size=30
)  # seconds since the last sample, joules since


def counter(moves: list[tuple[int, int]]) -> list[Sample]:
    """A counter that only rises; whole joules, so that sums are exact."""
    found, time_s, joules = [], 0, 0
    for seconds, more in moves:
        time_s, joules = time_s + seconds, joules + more
        found.append((time_s * NS_PER_S, float(joules)))
    return found


@given(steps, st.randoms(use_true_random=False))
def test_samples_in_any_order_and_doubled_say_the_same(moves, random) -> None:
    samples = counter(moves)
    mixed = [*samples, *random.sample(samples, k=len(samples) // 2)]
    random.shuffle(mixed)
    first, last = samples[0][0], samples[-1][0]
    for start, end in ((first, last), (first + (last - first) // 3, last - (last - first) // 5)):
        plain = CounterCurve(samples, tolerance_ns=TOLERANCE_NS).between(start, end)
        assert CounterCurve(mixed, tolerance_ns=TOLERANCE_NS).between(start, end) == plain


@given(steps, st.data())
def test_samples_that_are_missing_between_the_edges_change_nothing(moves, data) -> None:
    samples = counter(moves)
    kept = [samples[0], *data.draw(st.lists(st.sampled_from(samples), max_size=10)), samples[-1]]
    whole = CounterCurve(samples).between(samples[0][0], samples[-1][0])
    assert CounterCurve(kept).between(samples[0][0], samples[-1][0]) == whole == samples[-1][1] - samples[0][1]


@given(steps, st.data())
def test_parts_add_up_to_the_whole_wherever_it_is_cut(moves, data) -> None:
    samples = counter(moves)
    curve = CounterCurve(samples, tolerance_ns=TOLERANCE_NS)
    cuts = data.draw(st.lists(st.sampled_from(samples), max_size=5).map(sorted))
    edges = [samples[0][0], *(time_ns for time_ns, _ in cuts), samples[-1][0]]
    parts = [curve.between(start, end) for start, end in itertools.pairwise(edges)]
    assert None not in parts
    assert sum(part for part in parts if part is not None) == samples[-1][1] - samples[0][1]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(-10_000, 10_000)), min_size=2, max_size=30))
def test_a_counter_never_falls_whatever_was_sampled(moves) -> None:
    samples = counter(moves)
    curve = CounterCurve(samples, tolerance_ns=TOLERANCE_NS)
    known = [curve.at(time_ns) for time_ns, value in samples if value >= 0]
    assert None not in known
    assert known == sorted(value for value in known if value is not None)


@given(steps, st.integers(1, 29))
def test_a_series_that_goes_on_under_another_name_is_the_same_counter(moves, cut) -> None:
    samples = counter(moves)
    at = min(cut, len(samples) - 1)
    halves = [Series(labels={}, samples=tuple(samples[at:])), Series(labels={}, samples=tuple(samples[:at]))]
    assert put_together(halves) == samples
