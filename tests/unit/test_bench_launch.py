"""What the launch benchmark makes of its figures, and the program that it has jobs run."""

from __future__ import annotations

import argparse
import subprocess
import sys

from orchestrator.cluster.options import ControllerOptions, add_options, options_of
from tests.bench.bench_launch import OURS, TASK, Measured, in_turn, report


def test_a_ratio_says_how_many_times_the_peers_time_ours_takes() -> None:
    slower = Measured(what="x", unit="s", samples={OURS: (3.0, 1.0, 2.0), TASK: (1.0, 1.0, 4.0)}, load=0.0)
    assert slower.rows() == [
        ["x", OURS, "2.000 s", "1.000 to 3.000", "3", ""],
        ["x", TASK, "1.000 s", "1.000 to 4.000", "3", "2.00"],
    ]


def test_of_rates_the_ratio_is_turned_round() -> None:
    half_as_many = Measured(what="x", unit="jobs/s", samples={OURS: (2.0,), TASK: (4.0,)}, load=1.5)
    assert half_as_many.rows()[1][-1] == "2.00"
    assert "load of the machine at the start of each: 1.5" in report([half_as_many])


def test_the_first_round_is_asked_and_does_not_count() -> None:
    values = iter(range(6))
    samples = in_turn(2, {"a": lambda: next(values), "b": lambda: next(values)})
    assert samples == {"a": [2, 4], "b": [3, 5]}


def test_an_empty_job_prints_one_line_whatever_it_is_given() -> None:
    command = [sys.executable, "-m", "tests.bench.first_line", "job.json", "--attempt", "1"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "first line\n"


def test_a_controller_is_told_what_its_attempts_run() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = ControllerOptions(program="tests.bench.first_line")
    assert options_of(parser.parse_args(options.flags())) == options
    assert options_of(parser.parse_args([])).program == "workers.attempt"
