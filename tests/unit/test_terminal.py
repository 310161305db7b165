"""What a log shows of a run: a line for each change and no other, names as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.terminal import Column, RunDisplay, label, print_table
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.plan import Plan, PlannedJob
from tests.unit.ledger import attempt, job
from workers.contract import Phase
from workers.home import Home
from workers.progress import Progress, write_progress

QUEUED = job(state=JobState.QUEUED)
RUNNING = job(attempt(state=AttemptState.RUNNING))
DONE = job(attempt())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def progress(home: Home, phase: Phase, done: int) -> None:
    folder = home.attempt_folder("j", 1)
    folder.mkdir(parents=True, exist_ok=True)
    write_progress(folder, Progress(phase=phase, position=3, phases=4, done=done, total=10, loss=0.5, updated_ns=0))


def planned(*accelerators: str) -> Plan:
    jobs = tuple(
        PlannedJob(order=1, job_id=name, model="m", adapter="full", seed=0, accelerator=name, simulated=name == "T4")
        for name in accelerators
    )
    return Plan(jobs=jobs, waves=1, notes=())


def test_a_failure_is_told_with_its_reason_as_it_is(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        display.progressed(home, [replace(DONE, state=JobState.FAILED, reason="[red]no[/red] [module] :bomb:")])
    assert capsys.readouterr().err == "• j tiny/vit T4 seed 0: failed: [red]no[/red] [module] :bomb:\n"


def test_each_change_is_one_line_and_no_change_is_none(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        display.progressed(home, [QUEUED])
        display.progressed(home, [RUNNING])
        display.progressed(home, [RUNNING])
        progress(home, Phase.TRAIN, 1)
        display.progressed(home, [RUNNING])
        progress(home, Phase.TRAIN, 2)
        display.progressed(home, [RUNNING])
        display.progressed(home, [DONE])
        display.progressed(home, [DONE])
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "• j tiny/vit T4 seed 0: running on T4, starting",
        "• j tiny/vit T4 seed 0: running on T4, train",
        "• j tiny/vit T4 seed 0: succeeded",
    ]
    assert told.out == "", "standard output is for results"


def test_a_retry_is_told_with_the_reason_of_the_failure(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        display.progressed(home, [RUNNING])
        display.progressed(
            home, [replace(job(attempt(state=AttemptState.FAILED), state=JobState.QUEUED), reason="lost")]
        )
    assert capsys.readouterr().err.splitlines()[1] == "• j tiny/vit T4 seed 0: queued: lost"


def test_a_plan_is_told_in_one_line_that_says_what_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        display.planned(planned("T4"))
        display.planned(planned("H100", "T4"))
    assert capsys.readouterr().err.splitlines() == [
        "• 1 job on T4 (simulated)",
        "• 2 jobs on H100, T4 (simulated)",
    ]


def test_a_job_is_named_by_its_id_model_place_and_seed() -> None:
    assert label(job(seed=3)) == "j tiny/vit seed 3"
    assert label(job(attempt(accelerator="L4"))) == "j tiny/vit L4 seed 0"


def test_a_table_shows_cells_headings_and_notes_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(heading="[b]a[/b]"), Column(heading="n", numeric=True)]
    print_table("[i]title[/i]", columns, [["\\[red]x", "1"], [":rocket:", "10"]], ["[u]note[/u] ends with \\"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "[i]title[/i]"
    assert lines[1].split() == ["[b]a[/b]", "n"]
    assert [line.split() for line in lines[3:5]] == [["\\[red]x", "1"], [":rocket:", "10"]]
    assert lines[5] == "  [u]note[/u] ends with \\"


def test_a_long_figure_is_not_folded_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", [Column(heading="x"), Column(heading="why", folds=True)], [["9" * 60, "because " * 30]])
    out = capsys.readouterr().out
    assert "9" * 60 in out
    assert out.count("because") == 30
    assert max(map(len, out.splitlines())) <= 200


def test_prose_of_several_lines_begins_in_the_line_of_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(heading="what"), Column(heading="found", folds=True)]
    print_table("Title", columns, [["GPU", "lost\n→ reset it"]])
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["GPU", "lost"],
        ["→", "reset", "it"],
    ]


def test_columns_of_one_heading_each_show_their_own_cells(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(heading="spent", numeric=True), Column(heading="spent", numeric=True)]
    print_table("", columns, [["1", "2"], ["3", "4"]])
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [["1", "2"], ["3", "4"]]
