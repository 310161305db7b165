"""The bench of decisions: its cluster is as large as it says, its mixes are as named, and its table is whole."""

from orchestrator.scheduling.placement import decide
from tests.bench.bench_decide import FULL, TINY, measure, mixes, nodes, p99, told


def test_the_full_cluster_has_a_thousand_gpus_of_six_types():
    cluster = nodes(FULL)
    assert sum(node.gpus_total for node in cluster) == 1000
    assert len({node.accelerator for node in cluster}) == 6


def test_every_mix_answers_all_its_jobs_and_leaves_some_waiting():
    for snapshot in mixes(TINY).values():
        decisions = decide(snapshot)
        assert len(decisions.placements) + len(decisions.waiting) == len(snapshot.queued) == TINY.jobs
        assert decisions.placements
        assert decisions.waiting


def test_the_99th_percentile_is_by_nearest_rank():
    assert p99([float(number) for number in range(1, 101)]) == 99.0
    assert p99([2.0, 1.0]) == 2.0


def test_the_table_has_a_row_for_each_mix_that_was_timed():
    timings = [measure(mix, snapshot, repeats=1, calls=2) for mix, snapshot in mixes(TINY).items()]
    assert len(told(timings).splitlines()) == 2 + len(timings)
    assert all(0 < timing.p50_ms <= timing.p99_ms for timing in timings)
