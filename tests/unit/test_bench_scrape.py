"""The scrape benchmark runs and compares like with like; how long it takes is for the benchmark to say, not a test."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench import bench_scrape


def test_the_benchmark_prints_and_saves_what_it_measured_and_on_what(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench_scrape.main(["--rounds", "3", "--save", str(tmp_path / "results")])
    printed = capsys.readouterr().out
    assert (tmp_path / "results/scrape.txt").read_text() == printed
    title, head, *rows, _, about = printed.splitlines()
    assert {"date", "machine"} <= json.loads(about).keys()
    assert title.startswith("scrape of 8 devices and 16 leases, 3 rounds; ")
    assert head.split() == ["series", "median", "ms", "p99", "ms", "x", "bare"]
    assert [re.sub(r"\s{2,}.*", "", row) for row in rows] == [
        "agent, over HTTP",
        "bare prometheus_client, over HTTP",
        "agent, text only",
    ]


def test_all_that_is_compared_gives_the_same_number_of_series() -> None:
    timings = bench_scrape.measure(1)
    per_device, per_lease, per_node = 6, 2, 2
    expected = 8 * per_device + 16 * per_lease + per_node
    assert [timing.series for timing in timings] == [expected] * 3


def test_the_slowest_of_few_rounds_is_their_p99() -> None:
    timing = bench_scrape.Timing(what="x", series=1, times_ms=(3.0, 1.0, 2.0))
    assert (timing.median_ms, timing.p99_ms) == (2.0, 3.0)
