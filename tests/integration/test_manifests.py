"""Every manifest that is shipped: it plans as it is, and its tiny profile runs, by the code that runs the study.

Here each runs a few steps, in this process, metered by an agent of its own; the heavy ones run them whole, as a user
would, and see that a fine-tune beats its base.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.manifest import expand_all, load_manifests
from workers import metric_log
from workers.attempt import Options, own_agent, run_attempt
from workers.contract import JobSpec, Phase
from workers.home import Home
from workers.leaving import Leaving
from workers.tasks import task_info
from workers.training import models

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "manifests").rglob("*.yaml"))
STUDIES = {"cegi", "highlights", "vision", "carbon_estimates", "inference"}
TYPES = ("H100", "A100-80GB")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT / "manifests").with_suffix(""))


def jobs_of(path: Path, profile: str | None) -> list[JobSpec]:
    """All jobs of a file, those that others need first."""
    loaded = [one.manifest for one in load_manifests([path], profile=profile)]
    expanded = expand_all(loaded, accelerator_types=TYPES, submission_id="test")
    return [spec for _, specs in expanded for spec in specs]


def firsts(specs: list[JobSpec]) -> list[JobSpec]:
    """The last job of each manifest, which is what it is about, and whatever it needs."""
    by_id, wanted = {spec.job_id: spec for spec in specs}, {}
    for spec in specs:
        wanted[spec.name] = spec
    found: dict[str, JobSpec] = {}

    def take(spec: JobSpec) -> None:
        for needed in spec.needs:
            take(by_id[needed])
        found[spec.job_id] = spec

    for spec in wanted.values():
        take(spec)
    return list(found.values())


def shortened(spec: JobSpec) -> JobSpec:
    """A few steps of everything."""
    changes: dict[str, object] = {
        "training": spec.training.model_copy(update={"max_steps": 2, "epochs": 1}),
        "evaluation": spec.evaluation.model_copy(update={"max_samples": 4, "batch_size": 2}),
    }
    if spec.measured_inference is not None:
        changes["inference"] = spec.measured_inference.model_copy(update={"requests": 2, "repeats": 1, "warmup": 1})
    return spec.model_copy(update=changes)


# As they are


def test_each_study_has_manifests_and_there_are_single_jobs_to_copy() -> None:
    assert {path.parent.name for path in FILES} == {*STUDIES, "examples", "manifests"}
    for path in FILES:
        if path.parent.name == "examples":
            assert len(jobs_of(path, None)) == 1, path


@pytest.mark.parametrize("path", FILES, ids=named)
def test_it_says_what_it_is_what_it_needs_and_how_to_try_it(path: Path) -> None:
    comment = [line for line in path.read_text().partition("version: 1")[0].splitlines() if line]
    assert all(line.startswith("#") for line in comment)
    text = "\n".join(comment)
    assert f"manifests/{named(path)}.yaml" in text, "a command that can be copied"
    assert "need" in text


@pytest.mark.parametrize("path", FILES, ids=named)
def test_it_has_jobs_and_under_its_tiny_profile_fewer_of_the_same_kind_and_task(path: Path) -> None:
    whole, tiny = jobs_of(path, None), jobs_of(path, "tiny")
    assert len(whole) >= len(tiny) > 0
    assert {(spec.kind, spec.task) for spec in whole} == {(spec.kind, spec.task) for spec in tiny}
    assert all(spec.model.startswith("tiny/") for spec in tiny)


# In small


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    """A node's agent with one simulated board, and how attempts find it and their ledger."""
    home = tmp_path_factory.mktemp("ledger")
    options = Options(job=home / "job.json", home=home, attempt=1, agent=None, devices=("0",), meter="simulated:H100")
    with own_agent(options) as socket:
        yield dataclasses.replace(options, agent=socket)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base models that have hardly learned, and an environment that is put back."""
    for name, info in models.MODELS.items():
        monkeypatch.setitem(models.MODELS, name, dataclasses.replace(info, source_epochs=1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("path", FILES, ids=named)
def test_its_tiny_profile_runs(path: Path, agent: Options) -> None:
    for spec in map(shortened, firsts(jobs_of(path, "tiny"))):
        assert agent.agent is not None
        told = run_attempt(spec, agent, agent.agent, Leaving())
        assert told.endswith(" J booked")
        rows = metric_log.read_metrics(Home(agent.home), spec.job_id, 1)
        ended = {row.phase for row in rows if row.name == metric_log.PHASE_END}
        assert ended == {row.phase for row in rows if row.name == metric_log.PHASE_START} >= {Phase.LOAD}
        if spec.kind != "inference":
            folder = Home(agent.home).attempt_folder(spec.job_id, 1)
            scores = json.loads((folder / "scores-evaluate.json").read_text())
            assert set(scores) == set(task_info(spec.task).metrics)
            assert all((score["value"] is None) == bool(score["reason"]) for score in scores.values())


# Whole


@pytest.mark.heavy
@pytest.mark.cluster
@pytest.mark.parametrize("path", FILES, ids=named)
def test_its_tiny_profile_runs_whole_on_a_cluster_and_a_fine_tune_beats_its_base(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--profile", "tiny", "--local", "--home"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [*command, str(tmp_path / "ledger"), "--out", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    reports = [path for path in tmp_path.rglob("report.json") if "ledger" not in path.parts]
    rows = [row for path in reports for row in json.loads(path.read_text())]
    assert rows
    assert {row["state"] for row in rows} == {"succeeded"}
    for row in rows:
        assert row["energy_kwh"] > 0
        assert row["energy_method"] == "simulated"
        if row["kind"] == "finetune":
            assert row["gain_percent"] > 0, row["job_id"]
            assert row["cegi_g"] > 0
        if row["kind"] == "inference":
            assert row["wh_per_1000_inferences"] > 0
