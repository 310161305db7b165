"""The launch benchmark runs on a real cluster; how long anything takes is for it to say, not a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import ROOT


@pytest.mark.cluster
@pytest.mark.heavy
def test_the_benchmark_measures_ours_and_the_peer_and_saves_what_it_printed(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--jobs", "2", "--submitted", "3", "--save", str(tmp_path)]
    command = [sys.executable, "-m", "tests.bench.bench_launch", *arguments]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "launch.txt").read_text() == ran.stdout
    found = json.loads((tmp_path / "launch.json").read_text())
    assert {"date", "machine"} <= found.keys()
    samples = {each["what"]: each["samples"] for each in found["measured"]}
    assert [len(kinds) for kinds in samples.values()] == [5, 2, 2, 5, 4]
    assert all(values and min(values) > 0 for kinds in samples.values() for values in kinds.values())
