"""Phase spans from the metric log, and entries cut at their edges."""

from __future__ import annotations

import pytest

from orchestrator.accounting.energy import by_phase, held_s, in_phases, sum_of, windows
from orchestrator.accounting.phases import PhaseSpan, last_of, phase_spans, total_of
from tests.unit.ledger import at, entry, standard_entries
from workers.contract import Method, Phase, Quality
from workers.metric_log import LOSS, PHASE_END, PHASE_START, SAMPLES, MetricSample


def sample(time_s: float, phase: Phase | None, name: str, value: float = 1.0, *, rank: int = 0) -> MetricSample:
    return MetricSample(time_ns=at(time_s), rank=rank, phase=phase, step=None, name=name, value=value)


def span(phase: Phase, start_s: float, end_s: float, *, complete: bool = True) -> PhaseSpan:
    return PhaseSpan(phase=phase, start_ns=at(start_s), end_ns=at(end_s), complete=complete)


def test_an_attempt_that_logged_nothing_has_no_spans() -> None:
    assert phase_spans([]) == ()


def test_a_killed_phase_ends_at_the_last_sample_and_is_not_complete() -> None:
    samples = [
        sample(0, Phase.TRAIN, PHASE_START),
        sample(5, Phase.TRAIN, LOSS),
        sample(6, None, "power_cap_watts"),
    ]
    assert phase_spans(samples) == (span(Phase.TRAIN, 0, 6, complete=False),)


def test_a_phase_killed_at_once_takes_no_time() -> None:
    (found,) = phase_spans([sample(2, Phase.TRAIN, PHASE_START)])
    assert (found, found.duration_s) == (span(Phase.TRAIN, 2, 2, complete=False), 0.0)


def test_a_phase_whose_end_was_lost_ends_where_the_next_one_starts() -> None:
    samples = [
        sample(0, Phase.LOAD, PHASE_START),
        sample(2, Phase.TRAIN, PHASE_START),
        sample(9, Phase.TRAIN, PHASE_END),
    ]
    assert phase_spans(samples) == (span(Phase.LOAD, 0, 2, complete=False), span(Phase.TRAIN, 2, 9))


def test_a_phase_whose_start_was_lost_begins_at_its_first_sample() -> None:
    samples = [sample(3, Phase.TRAIN, LOSS), sample(9, Phase.TRAIN, PHASE_END)]
    assert phase_spans(samples) == (span(Phase.TRAIN, 3, 9, complete=False),)


def test_spans_come_in_order_of_start() -> None:
    samples = [
        sample(0, Phase.LOAD, PHASE_START),
        sample(1, Phase.LOAD, PHASE_END),
        sample(1, Phase.BASELINE, PHASE_START),
        sample(2.5, Phase.BASELINE, PHASE_END),
    ]
    assert phase_spans(samples) == (span(Phase.LOAD, 0, 1), span(Phase.BASELINE, 1, 2.5))
    assert [found.duration_s for found in phase_spans(samples)] == [1.0, 1.5]


def test_ranks_make_one_span_from_the_first_start_to_the_last_end() -> None:
    samples = [
        sample(0, Phase.TRAIN, PHASE_START),
        sample(1, Phase.TRAIN, PHASE_START, rank=1),
        sample(8, Phase.TRAIN, PHASE_END, rank=1),
        sample(9, Phase.TRAIN, PHASE_END),
    ]
    assert phase_spans(samples) == (span(Phase.TRAIN, 0, 9),)
    assert phase_spans(samples[:3]) == (span(Phase.TRAIN, 0, 8, complete=False),)


def test_what_was_never_logged_is_none_not_zero() -> None:
    samples = [sample(0, Phase.TRAIN, SAMPLES, 5), sample(1, Phase.EVALUATE, SAMPLES, 7)]
    assert total_of(samples, SAMPLES, Phase.LOAD) is None
    assert last_of(samples, LOSS) is None
    assert sum_of([]) is None


def test_counts_are_summed_over_ranks_and_values_are_the_last() -> None:
    samples = [
        sample(0, Phase.TRAIN, SAMPLES, 5),
        sample(1, Phase.TRAIN, SAMPLES, 6, rank=1),
        sample(2, Phase.EVALUATE, SAMPLES, 7),
    ]
    assert total_of(samples, SAMPLES, Phase.TRAIN) == 11
    assert last_of(samples, SAMPLES, Phase.TRAIN) == 6
    assert last_of(samples, SAMPLES) == 7


def test_entries_that_know_their_phase_stand_as_they_are() -> None:
    entries = [entry(-1, 0, 10), *standard_entries()]
    assert in_phases(entries, [span(Phase.TRAIN, 0, 100)]) == tuple(entries)


def test_an_entry_across_phases_is_cut_at_their_edges_in_whole_millijoules() -> None:
    # 100 mJ over 3 s: 33.3 before, 50 in load, 16.7 in train.
    cut = in_phases([entry(0, 3, 0.1)], [span(Phase.LOAD, 1, 2.5), span(Phase.TRAIN, 2.5, 9)])
    assert [(part.phase, part.energy_mj) for part in cut] == [(None, 33), (Phase.LOAD, 50), (Phase.TRAIN, 17)]
    assert [(part.start_ns, part.end_ns) for part in cut] == [(at(0), at(1)), (at(1), at(2.5)), (at(2.5), at(3))]
    assert [part.quality for part in cut] == [frozenset(), {Quality.FALLBACK}, {Quality.FALLBACK}]


def test_an_entry_without_duration_is_not_cut() -> None:
    instant = entry(1, 1, 5)
    assert in_phases([instant], [span(Phase.LOAD, 0, 2)]) == (instant,)


def test_sums_are_exact_and_as_sure_as_their_weakest_part() -> None:
    total = sum_of([entry(0, 1, 0.001, quality=frozenset({Quality.GAP})), entry(1, 2, 0.002, method=Method.REPLAYED)])
    assert total is not None
    assert (total.energy_mj, total.energy_j, total.method) == (3, 0.003, Method.REPLAYED)
    assert (total.quality, total.energy_kwh) == ({Quality.GAP}, 3 / 3.6e9)


def test_phases_come_in_their_own_order_and_only_where_there_is_energy() -> None:
    found = by_phase([entry(5, 6, 2, Phase.TRAIN), entry(0, 1, 1, Phase.LOAD), entry(6, 7, 9)])
    assert [(phase, total.energy_mj) for phase, total in found.items()] == [(Phase.LOAD, 1000), (Phase.TRAIN, 2000)]


def test_a_window_is_from_the_first_start_to_the_last_end_of_each_attempt_and_device() -> None:
    held = windows(
        [
            entry(5, 6, 2, Phase.TRAIN),
            entry(0, 5, 1, Phase.LOAD),
            entry(0, 7, 3, device="GPU-b"),
            entry(20, 21, 4, number=2, quality=frozenset({Quality.SHARED})),
        ]
    )
    assert [(w.attempt, w.device, w.start_ns, w.end_ns, w.energy_mj, w.shared) for w in held] == [
        (1, "GPU-a", at(0), at(6), 3000, False),
        (1, "GPU-b", at(0), at(7), 3000, False),
        (2, "GPU-a", at(20), at(21), 4000, True),
    ]
    assert held_s(held) == pytest.approx(8.0, rel=1e-12)
