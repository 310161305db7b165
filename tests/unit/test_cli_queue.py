"""``status``, ``explain``, ``logs``, ``quota`` and ``states`` as a person types them, without Ray or a controller."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.cli.status import follow
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.queue_view import QueueView
from tests.clusters import ROOT
from tests.unit.ledger import at
from tests.unit.queue_ledger import QueueLedger, node

Call = Callable[..., tuple[int, str, str]]
H100, T4 = node("node-1", "H100"), node("node-2", "T4", simulated=False)
NOW = at(100)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[QueueLedger]:
    """Of the run ``study-1`` one job failed, one runs, one waits; the jobs of ``eval-1`` need the running one."""
    made = QueueLedger(tmp_path / "ledger")
    made.submit("study-1", "study-aa", "study-bb", "study-cc", resources={"accelerators": ["H100"]})
    made.submit("eval-1", "eval-dd", user="bob", at_s=-50, needs=["study-bb"])
    made.beat(H100, T4, at_s=95)
    made.start("study-aa", H100, at_s=0)
    made.write_log("study-aa", 1, "one\ntwo\nValueError: no\n")
    made.write_log("study-aa", 1, "of rank 1\n", rank=1)
    made.end("study-aa", 1, AttemptState.FAILED, JobState.FAILED, reason="[red]exit[/red] code 1", at_s=50)
    made.start("study-bb", H100, at_s=0)
    made.progress("study-bb", 1, 25, 100, at_s=100)
    yield made
    made.store.close()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: QueueLedger) -> Call:
    """Run ``wattledger`` on the ledger 100 s after the start; gives exit code, standard output and standard error."""
    monkeypatch.setenv("WATTLEDGER_HOME", str(ledger.home.root))
    monkeypatch.setattr("time.time_ns", lambda: NOW)

    def answer(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["wattledger", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return (int(left.value.code or 0), *capsys.readouterr())

    return answer


def line_of(job_id: str, out: str) -> str:
    (line,) = [line for line in out.splitlines() if f" {job_id} " in line]
    return line


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["explain", "study-b0"], "unknown job or run 'study-b0'. Did you mean 'study-bb'"),
            (["explain", "study"], "'study' means 3 jobs: study-aa, study-bb, study-cc. Name one."),
            (["logs", "s"], "'s' is the beginning of 3 job ids"),
            (
                ["logs", "study-cc"],
                "study-cc has written no log yet: it is queued. See why: wattledger explain study-cc",
            ),
            (["logs", "study-aa", "--rank", "7"], "study-aa has no log of rank 7."),
            (["status", "nightly"], "unknown job or run 'nightly'"),
            (["quota", "set", "--user", "ada"], "a quota needs a limit. Give --gpus, --queued-jobs, or both."),
            (["quota", "set", "--gpus", "1"], "a quota is of one: give --user or --project."),
            (["quota", "set", "--gpus", "1", "--user", "a", "--project", "b"], "a quota is of one"),
            (["quota", "remove", "--user", "ada"], "user ada has no quota. See those there are: wattledger quota show"),
            (["states", "--format", "xml"], "unknown format 'xml'"),
        ],
    )
    def test_what_cannot_be_is_bad_input_with_the_remedy(self, call: Call, arguments: list[str], told: str) -> None:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert told in err

    @pytest.mark.parametrize("verb", [("explain", "j"), ("logs", "j"), ("quota", "show")])
    def test_without_a_ledger_there_is_a_remedy_and_none_is_made(
        self, call: Call, tmp_path: Path, verb: tuple[str, ...]
    ) -> None:
        code, out, err = call(*verb, "--home", tmp_path / "none")
        assert (code, out) == (2, "")
        assert "there is no ledger in" in err
        assert not (tmp_path / "none").exists()


class TestStatus:
    def test_a_silent_controller_is_told_with_the_remedy_and_the_queue_is_shown(
        self, call: Call, ledger: QueueLedger
    ) -> None:
        ledger.beat(H100, T4, at_s=0)
        code, out, err = call("status", "--all")
        assert (code, err) == (0, "")
        assert "controller: not running: last heard of 100 s ago, on head; start one: wattledger up" in out
        assert "waits for an H100" in line_of("study-cc", out)

    def test_a_run_has_each_job_with_its_place_its_end_or_its_reason(self, call: Call) -> None:
        code, out, _ = call("status", "study")
        assert code == 0
        assert "[red]exit[/red] code 1; H100 (simulated) on node-1" in line_of("study-aa", out)
        assert line_of("study-bb", out).split()[6:12] == ["25", "%", "train", "25/100", "5", "min"]
        assert line_of("study-cc", out).startswith("1  study-cc")
        assert "eval-dd" not in out
        assert "controller: runs on head since 2024-01-01 11:00:00Z" in out

    def test_the_whole_queue_is_of_all_runs_and_of_unfinished_jobs(self, call: Call) -> None:
        _, out, _ = call("status", "--all")
        assert [name for name in ("study-aa", "study-bb", "study-cc", "eval-dd") if name in out.split()] == [
            "study-bb",
            "study-cc",
            "eval-dd",
        ]
        assert "waits for study-bb, which runs" in line_of("eval-dd", out)

    def test_one_job_is_shown_alone(self, call: Call) -> None:
        _, out, _ = call("status", "study-b")
        assert "study-bb" in out
        assert "study-cc" not in out

    def test_an_empty_queue_says_so(self, call: Call, tmp_path: Path) -> None:
        QueueLedger(tmp_path / "other").store.close()
        assert "no job waits or runs" in call("status", "--all", "--home", tmp_path / "other")[1]

    def test_as_json_it_is_the_jobs_and_their_controllers(self, call: Call) -> None:
        told = json.loads(call("status", "study-bb", "--json")[1])
        assert [(one["name"], one["is_alive"]) for one in told["controllers"]] == [("controller", True)]
        (job,) = told["jobs"]
        assert (job["eta_s"], job["nodes"], job["simulated"], job["waits_for"]) == (300.0, ["node-1"], True, None)

    def test_watched_in_a_log_it_is_shown_once(self, call: Call) -> None:
        assert call("status", "--watch", "study")[1] == call("status", "study")[1]

    def test_watched_it_is_drawn_anew_until_all_have_ended(self, ledger: QueueLedger) -> None:
        shown: list[QueueView] = []

        def sleep(seconds: float) -> None:
            assert seconds == 1.0
            if len(shown) == 2:
                ledger.end("study-bb", 1, AttemptState.SUCCEEDED, JobState.SUCCEEDED)

        follow(ledger.home, ledger.store, lambda: [ledger.store.job("study-bb")], shown.append, sleep=sleep)
        assert [view.jobs[0].record.state for view in shown] == [JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED]


class TestExplain:
    def test_a_failure_is_told_with_its_story_its_last_words_and_what_to_do(self, call: Call) -> None:
        code, out, err = call("explain", "study-a")
        assert (code, err) == (0, "")
        assert "attempt 1 starts on node-1 (H100): it was free" in out
        assert "attempt 1 failed: [red]exit[/red] code 1" in out
        assert "  ValueError: no\n" in out
        assert out.endswith(
            "What to do: read its log (wattledger logs study-aa), mend what it names, and submit the manifest again.\n"
        )

    def test_a_job_that_waits_is_told_for_what(self, call: Call) -> None:
        _, out, _ = call("explain", "study-cc")
        assert "study-bb holds H100 on node-1; ends in 5 min" in out
        assert "1 of 1, priority 0" in out
        assert "What to do" not in out

    def test_as_json_it_has_the_story(self, call: Call) -> None:
        told = json.loads(call("explain", "eval-dd", "--json")[1])
        assert told["needs"] == [{"job_id": "study-bb", "state": "running", "reason": None}]
        assert told["starts_after"] == ["study-bb to succeed; it is running"]


class TestLogs:
    def test_followed_to_a_bad_end_it_exits_1_and_says_so_beside_the_log(self, call: Call) -> None:
        assert call("logs", "study-aa", "-f") == (
            1,
            "one\ntwo\nValueError: no\n",
            "• attempt 1 of study-aa on H100\n• attempt 1 failed: [red]exit[/red] code 1\n",
        )

    @pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("cancelled", 130)])
    def test_followed_it_exits_as_the_job_ended(self, call: Call, ledger: QueueLedger, state: str, code: int) -> None:
        ledger.write_log("study-bb", 1, "done\n")
        ledger.end("study-bb", 1, AttemptState(state), JobState(state))
        assert call("logs", "study-bb", "--follow")[:2] == (code, "done\n")

    def test_it_is_printed_as_it_is_or_its_tail_or_another_rank_s(self, call: Call) -> None:
        assert call("logs", "study-aa") == (0, "one\ntwo\nValueError: no\n", "")
        assert call("logs", "study-aa", "--tail", "1") == (0, "ValueError: no\n", "")
        assert call("logs", "study-aa", "--rank", "1", "--attempt", "1") == (0, "of rank 1\n", "")

    def test_as_json_it_is_the_files(self, call: Call, ledger: QueueLedger) -> None:
        first, second = json.loads(call("logs", "study-aa", "--json")[1])
        folder = ledger.home.attempt_folder("study-aa", 1)
        assert first == {"attempt": 1, "rank": 0, "path": str(folder / "log.txt"), "size_bytes": 23}
        assert second["path"] == str(folder / "log-1.txt")


class TestQuota:
    def test_what_is_set_is_shown_with_what_is_used_and_left_and_can_be_taken_back(self, call: Call) -> None:
        assert call("quota", "set", "--user", "ada", "--gpus", "4", "--queued-jobs", "10") == (
            0,
            "user ada may have 4 GPUs at once and 10 jobs in the queue\n",
            "",
        )
        assert call("quota", "set", "--user", "*", "--queued-jobs", "1")[1] == (
            "each user without its own may have 1 job in the queue\n"
        )
        (ada,), (bob,) = (
            [line.split() for line in call("quota", "show")[1].splitlines() if line.startswith(f"user {name}")]
            for name in ("ada", "bob")
        )
        assert ada == ["user", "ada", "user", "ada", "4", "1", "3", "10", "1", "9"]
        assert bob[-6:] == ["–", "0", "–", "1", "1", "0"]
        assert call("quota", "remove", "--user", "ada") == (0, "", "")
        assert {use["name"] for use in json.loads(call("quota", "show", "--json")[1])} == {"ada", "bob"}, "now of each"

    def test_a_quota_may_be_there_before_the_first_run(self, call: Call, tmp_path: Path) -> None:
        new = tmp_path / "new"
        assert call("quota", "set", "--project", "moon", "--gpus", "0.5", "--home", new)[0] == 0
        assert json.loads(call("quota", "show", "--json", "--home", new)[1])[0]["gpus"]["quota"] == 0.5

    def test_where_none_is_set_it_says_how(self, call: Call) -> None:
        assert "none is set: wattledger quota set --help" in call("quota", "show")[1]


def test_the_states_are_printed_in_each_format(call: Call) -> None:
    assert "its attempt was asked to leave" in call("states")[1]
    assert call("states", "--format", "mermaid")[1].startswith("stateDiagram-v2")
    assert "| `queued` |" in call("states", "--format", "markdown")[1]
    assert json.loads(call("states", "--json")[1])[0]["state"] == "queued"


def on_terminal(columns: int, ledger: QueueLedger, *arguments: str) -> list[str]:
    """The lines a command shows on a terminal that wide, without colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "WATTLEDGER_HOME": str(ledger.home.root)}
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment,
    ) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the last writer has left
        return b""


def test_a_terminal_of_80_columns_has_room_for_job_state_end_and_reason(ledger: QueueLedger) -> None:
    lines = on_terminal(80, ledger, "status", "--all")
    assert lines[1].split()[:3] == ["job", "state", "done"]
    assert "where, or why not" in lines[1]
    assert max(map(len, lines)) <= 80
    assert any("no room for: #, model" in line for line in lines)
    assert lines[1].split() != on_terminal(160, ledger, "status", "--all")[1].split()


def test_a_job_that_has_ended_is_watched_no_longer_and_its_table_stays(ledger: QueueLedger) -> None:
    lines = on_terminal(120, ledger, "status", "study-aa", "--watch")
    assert "study-aa" in lines[-1] + lines[-2], "the last that was drawn"


TWO = str(ROOT / "manifests" / "finetune_then_evaluate.yaml")


class TestPlan:
    def test_where_the_controller_is_silent_it_says_how_old_the_view_is(self, call: Call, ledger: QueueLedger) -> None:
        ledger.beat(H100, T4, at_s=0)
        code, out, _ = call("plan", TWO)
        assert code == 0
        assert "The controller does not run; the cluster is as it saw it 100 s ago." in out

    def test_it_is_of_the_ledger_s_cluster_and_tells_who_waits_already(self, call: Call) -> None:
        code, out, _ = call("plan", TWO)
        assert code == 0
        assert "on the cluster at head:6379" in out
        assert "2 jobs wait in the queue already; they are not in this plan" in out
        assert "The controller does not run" not in out

    def test_jobs_that_need_others_of_the_plan_say_so_by_their_numbers(self, call: Call) -> None:
        rows = [line.split() for line in call("plan", TWO)[1].splitlines() if " tiny/" in line]
        kinds = {row[0]: row[3] for row in rows}
        needed = {row[0]: row[row.index("after") + 1].strip("#;") for row in rows if "after" in row}
        assert {kinds[name] for name in needed} == {"finetune", "inference"}
        assert {kinds[needed[name]] for name in needed if kinds[name] == "inference"} == {"finetune"}
        assert {kinds[needed[name]] for name in needed if kinds[name] == "finetune"} == {"evaluate"}

    def test_with_local_the_ledger_is_not_asked(self, call: Call) -> None:
        out = call("plan", TWO, "--local", "--simulate", "T4")[1]
        assert "on a local cluster of this machine" in out
        assert "wait in the queue" not in out


def test_a_screen_too_low_counts_the_rows_it_leaves_out_and_keeps_the_notes(ledger: QueueLedger) -> None:
    ledger.submit("many-1", *(f"many-{number:03}" for number in range(200)))
    ledger.store.finish("many-1", JobState.CANCELLED, reason="a long reason " * 12, now_ns=at(1))
    lines = on_terminal(100, ledger, "status", "many", "--watch")
    shown = sum("many-" in line for line in lines[-39:])
    assert 5 < shown < 39
    assert any(f"and {201 - shown} more (without --watch all are shown)" in line for line in lines)
