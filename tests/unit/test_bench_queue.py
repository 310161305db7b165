"""The benchmark of the queue measures what it says: all jobs end, and the same seed makes the same jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.bench_queue import TYPES, drive, main, nodes, specs, submit


def test_all_jobs_are_driven_to_success_with_a_second_try_where_the_first_was_made_to_fail(tmp_path: Path) -> None:
    driven = drive(tmp_path, jobs=70, node_count=12)
    assert driven.states == {"succeeded": 70}
    assert driven.attempts == 70 + 2, "job 13 and job 63"
    assert driven.jobs_per_s == driven.jobs / driven.seconds


def test_a_submission_is_all_there_and_adds_nothing_the_second_time(tmp_path: Path) -> None:
    assert submit(tmp_path, jobs=20).jobs == 20


def test_the_same_seed_makes_the_same_jobs_and_another_does_not() -> None:
    assert specs(60) == specs(60)
    assert specs(60) != specs(60, seed=1)
    assert any(spec.needs for spec in specs(60))
    assert any(spec.resources.nodes == 2 for spec in specs(60))


def test_nodes_are_of_all_types() -> None:
    assert {node.accelerator for node in nodes(6)} == set(TYPES)


def test_it_prints_both_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--jobs", "5", "--nodes", "12", "--submitted", "3"])
    told = json.loads(capsys.readouterr().out)
    assert (told["submit"]["jobs"], told["drive"]["states"]) == (3, {"succeeded": 5})
