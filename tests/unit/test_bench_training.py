"""The training benchmark compares like with like; how long each takes is for the benchmark to say, not a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bench import bench_training
from tests.bench.bench_training import BARE, ON, Bare, Cost, made, ratios, spread
from workers.training.examples import IGNORED


def test_both_sides_are_given_the_same_tokens_and_every_sample_has_equally_many(tmp_path: Path) -> None:
    bench = made(6)
    ours = bench.train.batch(torch.arange(6), torch.device("cpu"))
    theirs = Bare(bench, tmp_path).rows
    assert ours.inputs["input_ids"].tolist() == [row["input_ids"] for row in theirs]  # type: ignore[attr-defined]
    # Ours says of each place what comes next, theirs what is there.
    assert [[IGNORED, *row] for row in ours.targets.tolist()] == [[*row["labels"], IGNORED] for row in theirs]
    assert len({len(row["input_ids"]) for row in theirs}) == 1


def test_a_ratio_is_taken_round_by_round() -> None:
    costs = {BARE: [Cost(wall_s=1.0, cpu_s=2.0), Cost(wall_s=4.0, cpu_s=2.0)]}
    costs[ON] = [Cost(wall_s=2.0, cpu_s=1.0), Cost(wall_s=2.0, cpu_s=1.0)]
    assert ratios(costs, ON, lambda cost: cost.wall_s) == [2.0, 0.5]
    assert spread([2.0, 0.5]) == "1.250 (0.500-2.000)"


@pytest.mark.heavy
def test_it_prints_and_saves_what_it_measured_and_on_what(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bench_training.main(["--rounds", "1", "--steps", "1", "--batches", "1", "--save", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.endswith((tmp_path / "training.txt").read_text()), "before it, what packages say when imported"
    assert printed.count(ON) == printed.count(BARE) == 2
    assert "simulated board" in printed
