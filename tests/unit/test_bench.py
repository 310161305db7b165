"""What the benchmarks compute, and a short run of ours beside the bare loop."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from tests.bench.accuracy import BARE, OURS, run_scenario
from tests.bench.accuracy import render as render_accuracy
from tests.bench.cost import SAME, Cost
from tests.bench.cost import render as render_cost
from tests.bench.figures import Outcome, cell, error_percent, signed, table
from tests.bench.scenarios import BUSY, IDLE, Scenario, scenarios
from tests.driver.build import build_library

PJ = 10**12


def outcome(joules: float | None, error: str = "", flags: tuple[str, ...] = ()) -> Outcome:
    """Against a truth of 100 J."""
    return Outcome(joules=joules, true_pj=100 * PJ, error=error, flags=flags)


def test_an_error_is_signed_and_a_truth_of_nothing_has_none() -> None:
    assert error_percent(101, 100 * PJ) == 1.0
    assert error_percent(0, 100 * PJ) == -100.0
    assert error_percent(5, 0) is None


@pytest.mark.parametrize(
    ("percent", "text"), [(0.004, "0.00"), (-0.004, "0.00"), (0.126, "+0.13"), (-9.5, "-9.50"), (71.44, "+71.4")]
)
def test_an_error_is_written_with_its_sign_and_nothing_has_none(percent: float, text: str) -> None:
    assert signed(percent) == text


def test_a_failure_is_a_word_beside_what_did_work_never_a_figure() -> None:
    assert cell([outcome(None, "NVMLError")]) == "NVMLError"
    assert cell([outcome(102), outcome(None, "NVMLError")]) == "+2.00 1 of 2: NVMLError"


def test_several_windows_are_their_mean_and_the_farthest_with_all_flags() -> None:
    found = [outcome(101, flags=("gap",)), outcome(97, flags=("reset",))]
    assert cell(found) == "-1.00 (worst -3.00) [gap, reset]"


def test_a_table_is_aligned() -> None:
    assert table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"


def test_a_result_names_the_truth_and_the_machine_and_has_ours_first() -> None:
    text = render_accuracy({"steady": {"zeus": [outcome(100)], OURS: [outcome(101)]}}, {"machine": "m"})
    assert text.splitlines()[1:4] == [
        "| scenario | ours  | zeus |",
        "|----------|-------|------|",
        "| steady   | +1.00 | 0.00 |",
    ]
    assert text.endswith('{"machine": "m"}\n')


def test_costs_are_told_as_ratios_to_the_same_calls() -> None:
    costs = {OURS: {1: Cost(cpu=0.003, rss_mb=40, calls=32)}, SAME: {1: Cost(cpu=0.002, rss_mb=20, calls=30)}}
    assert "| 0.0030 (1.50)" in render_cost(costs, {})


def test_every_course_begins_before_its_window_and_names_are_different() -> None:
    found = scenarios()
    assert len({scenario.name for scenario in found}) == len(found)
    assert all(scenario.course[0][0] < 0 for scenario in found)


def test_ours_is_within_five_percent_of_a_200_ms_job_where_a_bare_loop_is_not(tmp_path: Path) -> None:
    scenario = Scenario(name="smoke", length_ms=200, course=((-1000, IDLE), (0, BUSY), (200, IDLE)), repeats=5)
    library = build_library(tmp_path)
    results = run_scenario(scenario, library, python=Path(sys.executable), peers=(), lead_ms=1200)
    ours, bare = (
        [abs(one.error_percent) for one in results[name] if one.error_percent is not None] for name in (OURS, BARE)
    )
    assert len(ours) == len(bare) == 5
    # The median: whoever else uses the machine may hold up a meter in one window, and an error of its own is in all.
    assert statistics.median(ours) < 5 < statistics.median(bare)
