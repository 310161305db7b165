"""The command line as a person or a script meets it: what it prints where, and what its exit codes say."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.accounting.row import FIELDS
from orchestrator.cli import main
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import RunRecord, Store
from tests.clusters import ROOT, quick_manifest
from tests.unit.ledger import Ledger, at, standard_entries
from workers.contract import JobSpec

VERBS = (
    "plan", "run", "submit", "cancel", "up", "down", "status", "explain", "logs", "report", "compare", "rollup", "sql",
    "compact", "targets", "doctor", "schema", "states", "budget", "quota",
)  # fmt: skip
READERS = ("status", "report", "compare")
QUICKSTART = str(ROOT / "manifests" / "quickstart.yaml")
MARKUP = "[red]tiny[/red] [nothing] :rocket:"
"""What rich would paint, drop and replace."""
OURS = (
    "WATTLEDGER_HOME",
    "WATTLEDGER_PROMETHEUS_URL",
    "WATTLEDGER_AGENT_LISTEN",
    "WATTLEDGER_AGENT_ACCESS",
    "RAY_ADDRESS",
)


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


Call = Callable[..., Told]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process; nothing of the caller's environment reaches it."""
    for name in OURS:
        monkeypatch.delenv(name, raising=False)

    def answer(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["wattledger", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return Told(int(left.value.code or 0), *capsys.readouterr())

    return answer


def clean_environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OURS} | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *arguments]


def words(text: str) -> str:
    """The text without the frames and folds of a help page."""
    return re.sub(r"[\s│]+", " ", text)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A run of two jobs: ``j`` has been measured and succeeded, ``k`` failed, and its model is named as no model is."""
    made = Ledger(tmp_path / "ledger")
    made.log_standard()
    made.book(*standard_entries())
    specs = [
        JobSpec(job_id="j", name="study", task="digits", model="tiny/vit"),
        JobSpec(job_id="k", name="study", task="digits", model=MARKUP),
    ]
    with contextlib.closing(Store(made.home.state_db)) as store:
        store.submit(
            RunRecord(run_id="study-1", name="study", manifest="", submitted_ns=at(-60), host="h", pid=1), specs
        )
        store.start_attempt("j", nodes=("f00d",), accelerator="T4", now_ns=at(-1))
        store.end_attempt("j", 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=at(15))
        store.set_state("k", JobState.FAILED, reason=f"no {MARKUP}", now_ns=at(0))
    return made.home.root


class TestErrors:
    def test_an_unknown_verb_is_bad_input(self, call: Call) -> None:
        told = call("frobnicate")
        assert told.code == 2
        assert "No such command 'frobnicate'" in told.err

    @pytest.mark.parametrize("verb", READERS)
    def test_without_a_ledger_there_is_a_remedy(self, call: Call, tmp_path: Path, verb: str) -> None:
        told = call(verb, "--home", tmp_path)
        assert (told.code, told.out) == (2, "")
        assert told.err == (
            f"there is no ledger in {tmp_path}. Start a run, or name another folder with --home or WATTLEDGER_HOME.\n"
        )
        assert list(tmp_path.iterdir()) == [], "reading makes nothing"

    @pytest.mark.parametrize("verb", READERS)
    def test_in_an_empty_ledger_there_is_a_remedy(self, call: Call, tmp_path: Path, verb: str) -> None:
        Store(tmp_path / "state.db").close()
        told = call(verb, "--home", tmp_path)
        assert (told.code, told.out) == (2, "")
        assert told.err == (
            "this ledger has no runs yet. Start one: wattledger run manifests/quickstart.yaml --local\n"
        )

    @pytest.mark.parametrize("verb", ["report", "compare"])
    def test_an_unknown_run_is_answered_with_those_there_are(self, call: Call, ledger: Path, verb: str) -> None:
        told = call(verb, "nightly", "--home", ledger)
        assert (told.code, told.out) == (2, "")
        assert told.err == "no run is called 'nightly'. The latest are: study-1.\n"

    @pytest.mark.parametrize("verb", READERS)
    def test_a_ledger_that_is_no_database_is_no_traceback(self, call: Call, tmp_path: Path, verb: str) -> None:
        (tmp_path / "state.db").write_text("dear diary" * 100)
        told = call(verb, "--home", tmp_path)
        assert told.code == 2
        assert told.err.startswith(f"{tmp_path / 'state.db'} cannot be used as a ledger: file is not a database.")

    def test_a_uri_is_no_folder_wherever_it_is_named(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        refused = "WATTLEDGER_HOME is a URI (s3://bucket/x); name a local folder instead.\n"
        assert call("status", "--home", "s3://bucket/x") == Told(2, "", refused)
        monkeypatch.setenv("WATTLEDGER_HOME", "s3://bucket/x")
        assert call("status") == Told(2, "", refused)

    @pytest.mark.parametrize("verb", ["plan", "run"])
    def test_a_manifest_that_is_not_there_is_bad_input(self, call: Call, tmp_path: Path, verb: str) -> None:
        told = call(verb, tmp_path / "none.yaml")
        assert (told.code, told.out) == (2, "")
        assert str(tmp_path / "none.yaml") in told.err

    @pytest.mark.parametrize("verb", ["plan", "run", "submit"])
    def test_a_profile_that_is_not_there_is_bad_input_that_lists_those_there_are(
        self, call: Call, tmp_path: Path, verb: str
    ) -> None:
        told = call(verb, QUICKSTART, "--profile", "tny", "--home", tmp_path)
        assert (told.code, told.out) == (2, "")
        assert "unknown profile 'tny'. Did you mean 'tiny'? Known: tiny." in words(told.err)

    def test_a_report_that_cannot_be_written_says_where_it_can_be_had(self, call: Call, ledger: Path) -> None:
        told = call("report", "--home", ledger, "--out", ledger / "state.db")
        assert told.code == 2
        assert f"the report cannot be written to {ledger / 'state.db'}" in told.err
        assert "wattledger report --out FOLDER" in told.err
        assert "study-1" in told.out, "the table was printed all the same"

    def test_ctrl_c_is_130_and_no_traceback(self, tmp_path: Path) -> None:
        manifest = tmp_path / "never.yaml"
        os.mkfifo(manifest)
        process = subprocess.Popen(command("plan", str(manifest)), stderr=subprocess.PIPE, cwd=ROOT)
        with manifest.open("w"):  # which waits until the command reads it
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, b"")


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help_without_a_configuration_or_a_ledger(
        self, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
        told = call(verb, "--help")
        assert (told.code, told.err) == (0, "")
        assert f"Usage: wattledger {verb}" in told.out
        assert list(tmp_path.iterdir()) == []

    def test_the_list_of_verbs_is_complete(self, call: Call) -> None:
        told = call("--help")
        assert all(re.search(rf"^│ {verb} +\S", told.out, re.MULTILINE) for verb in VERBS)

    @pytest.mark.parametrize(
        ("verb", "option", "variable"),
        [
            *(
                (verb, "--home", "WATTLEDGER_HOME")
                for verb in VERBS
                if verb not in ("schema", "states", "budget", "quota")
            ),
            *((verb, "--prometheus", "WATTLEDGER_PROMETHEUS_URL") for verb in ("run", "report", "compare")),
            *((verb, "--address", "RAY_ADDRESS") for verb in ("run", "up", "down")),
        ],
    )
    def test_each_option_shows_its_environment_variable(
        self, call: Call, verb: str, option: str, variable: str
    ) -> None:
        assert re.search(rf"{option} .*?\[env var: {variable}\]", words(call(verb, "--help").out))

    def test_agents_that_cannot_be_protected_as_asked_are_not_started(self, call: Call, tmp_path: Path) -> None:
        where = ("run", QUICKSTART, "--local", "--simulate", "H100", "--home", tmp_path / "home", "--agent-access")
        missing = call(*where, tmp_path / "none")
        assert (missing.code, missing.out) == (2, "")
        assert f"{tmp_path / 'none'} cannot be read" in words(missing.err)
        access = tmp_path / "access.toml"
        access.write_text('auth_user = "prometheus"\nauth_password_file = "password"\n')
        clear = call(*where, access, "--agent-listen", "0.0.0.0")
        assert (clear.code, clear.out) == (2, "")
        assert "the password of prometheus would travel over the network in clear" in words(clear.err)

    def test_run_lists_its_exit_codes(self, call: Call) -> None:
        assert "0 done, 1 a job failed, 2 bad input, 3 no cluster, 130 cancelled" in words(call("run", "--help").out)


class TestPlan:
    def test_of_an_impossible_manifest_is_shown_and_exits_2(self, call: Call, tmp_path: Path) -> None:
        manifest = quick_manifest(tmp_path, accelerators="[K80]")
        told = call("plan", manifest, "--simulate", "T4")
        assert told.code == 2
        assert told.err == "1 of 1 jobs can never run there.\n"
        assert "no node has a K80; this cluster has: " in told.out
        told = call("plan", manifest, "--simulate", "T4", "--json")
        assert told.code == 2
        (job,) = json.loads(told.out)["jobs"]
        assert job["impossible"].startswith("no node has a K80; this cluster has: ")
        assert "T4 x" in job["impossible"]
        assert (job["wave"], job["node"]) == (None, None)

    def test_a_type_that_cannot_be_simulated_is_bad_input(self, call: Call) -> None:
        told = call("plan", QUICKSTART, "--simulate", "H999")
        assert told.code == 2
        assert told.err.startswith("unknown simulated accelerator 'H999'. Known: A100-80GB, ")

    def test_the_quickstart_is_eight_jobs_on_two_types_without_a_cluster(self, call: Call) -> None:
        told = call("plan", QUICKSTART, "--json")
        assert (told.code, told.err) == (0, "")
        plan = json.loads(told.out)
        assert len(plan["jobs"]) == 8
        assert {job["accelerator"] for job in plan["jobs"]} == {"H100", "A100-80GB"}
        assert {job["model"] for job in plan["jobs"]} == {"tiny/vit", "tiny/convnext"}
        assert {job["seed"] for job in plan["jobs"]} == {0, 1}
        assert {job["impossible"] for job in plan["jobs"]} == {None}

    def test_under_a_profile_it_is_of_what_the_profile_makes(self, call: Call) -> None:
        told = call("plan", QUICKSTART, "--profile", "tiny", "--json")
        jobs = json.loads(told.out)["jobs"]
        assert len(jobs) == 4
        assert {job["seed"] for job in jobs} == {0}
        assert all(job["job_id"].startswith("quickstart-tiny-") for job in jobs)
        assert "Plan of quickstart-tiny on" in call("plan", QUICKSTART, "--profile", "tiny").out

    def test_the_simulated_types_are_those_asked_for(self, call: Call) -> None:
        told = call("plan", QUICKSTART, "--simulate", "T4", "--json")
        assert {job["accelerator"] for job in json.loads(told.out)["jobs"]} >= {"T4"}

    def test_it_loads_neither_ray_nor_torch(self) -> None:
        script = (
            "import sys, atexit\n"
            "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
            "from orchestrator.cli import main\n"
            f"sys.argv = ['wattledger', 'plan', {QUICKSTART!r}, '--json']\n"
            "main()\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=clean_environment()
        )
        assert len(json.loads(ran.stdout)["jobs"]) == 8
        loaded = {name.partition(".")[0] for name in ran.stderr.split()}
        assert "orchestrator" in loaded
        assert loaded & {"ray", "torch", "transformers", "peft", "sklearn", "matplotlib", "jinja2"} == set()


class TestReads:
    def test_report_as_json_has_the_fields_of_the_contract_and_no_other(self, call: Call, ledger: Path) -> None:
        told = call("report", "--json", "--home", ledger)
        assert (told.code, told.err) == (0, "")
        rows = json.loads(told.out)
        assert [tuple(row) for row in rows] == [FIELDS, FIELDS]
        measured, failed = rows
        assert (measured["job_id"], measured["state"], measured["energy_kwh"]) == ("j", "succeeded", 0.001)
        assert (measured["accelerator"], measured["attempts"]) == ("T4", 1)
        assert (failed["job_id"], failed["state"], failed["energy_kwh"]) == ("k", "failed", None)

    def test_json_stays_json_while_the_report_is_written_to_files(
        self, call: Call, ledger: Path, tmp_path: Path
    ) -> None:
        told = call("report", "--json", "--home", ledger, "--out", tmp_path / "out")
        assert told.code == 0
        assert json.loads(told.out) == json.loads((tmp_path / "out" / "report.json").read_text())
        names = ["report.html", "report.json", "report.parquet", "reasons.json", "details.json"]
        assert told.err.splitlines() == [f"wrote {tmp_path / 'out' / name}" for name in names]

    def test_report_tells_why_each_unknown_figure_is_unknown(self, call: Call, ledger: Path) -> None:
        by_job = json.loads(call("report", "--why", "--json", "--home", ledger).out)
        rows = {row["job_id"]: row for row in json.loads(call("report", "--json", "--home", ledger).out)}
        for job_id, row in rows.items():
            unknown = {field for field, value in row.items() if value is None}
            assert set(by_job[job_id]) == unknown
            assert all(by_job[job_id].values())
        shown = call("report", "--why", "--home", ledger)
        assert shown.code == 0
        assert set(by_job["k"]) <= set(shown.out.split())

    def test_a_run_is_found_by_its_id_its_name_or_as_the_latest(self, call: Call, ledger: Path) -> None:
        by_id = call("report", "study-1", "--json", "--home", ledger)
        assert call("report", "study", "--json", "--home", ledger) == by_id
        assert call("report", "--json", "--home", ledger) == by_id

    def test_the_home_may_be_named_by_the_environment(
        self, call: Call, monkeypatch: pytest.MonkeyPatch, ledger: Path
    ) -> None:
        told = call("report", "--json", "--home", ledger)
        monkeypatch.setenv("WATTLEDGER_HOME", str(ledger))
        assert call("report", "--json") == told

    def test_status_as_json_has_each_job_with_its_attempts(self, call: Call, ledger: Path) -> None:
        done, failed = json.loads(call("status", "--json", "--home", ledger).out)["jobs"]
        assert (done["job_id"], done["run_id"], done["state"], done["reason"]) == ("j", "study-1", "succeeded", None)
        (attempt,) = done["attempts"]
        assert (attempt["number"], attempt["state"], attempt["nodes"]) == (1, "succeeded", ["f00d"])
        assert (failed["state"], failed["reason"], failed["attempts"]) == ("failed", f"no {MARKUP}", [])
        assert done["progress"] is None

    def test_compare_as_json_leaves_out_what_did_not_finish(self, call: Call, ledger: Path) -> None:
        told = call("compare", "--json", "--home", ledger)
        assert (told.code, told.err) == (0, "")
        compared = json.loads(told.out)
        (cell,) = compared["cells"]
        assert (cell["architecture"], cell["accelerator"], cell["n"], cell["jobs"]) == ("vit", "T4", 1, ["j"])
        assert (cell["energy_kwh"]["mean"], cell["energy_kwh"]["sd"]) == (0.001, None)
        assert [left["job_id"] for left in compared["left_out"]] == ["k"]

    @pytest.mark.parametrize("verb", READERS)
    def test_each_has_a_table(self, call: Call, ledger: Path, verb: str) -> None:
        told = call(verb, "--home", ledger)
        assert (told.code, told.err) == (0, "")
        assert "study-1" in told.out
        assert "T4" in told.out

    def test_names_and_reasons_are_shown_as_they_are_whatever_rich_makes_of_brackets(
        self, call: Call, ledger: Path
    ) -> None:
        told = call("status", "--home", ledger)
        (line,) = [line for line in told.out.splitlines() if line.startswith("–  k ")]
        assert line.count(MARKUP) == 2, "the model and the reason"
        assert f"model {MARKUP} is not in the registry" in call("report", "--why", "--home", ledger).out

    def test_a_run_whose_controller_is_gone_is_settled_before_it_is_reported(self, call: Call, tmp_path: Path) -> None:
        with contextlib.closing(Store(tmp_path / "state.db")) as store:
            record = RunRecord(
                run_id="r",
                name="n",
                manifest="",
                submitted_ns=1,
                host=socket.gethostname(),
                pid=os.getpid(),
                bound=True,
            )
            store.submit(record, [JobSpec(job_id="j", task="digits", model="tiny/vit")])
        (row,) = json.loads(call("report", "--json", "--home", tmp_path).out)
        assert row["state"] == "failed"
        (job,) = json.loads(call("status", "--json", "--home", tmp_path).out)["jobs"]
        assert job["reason"] == "the process it was bound to ended without finishing it; submit the manifest again"


class TestSmallVerbs:
    def test_schema_prints_a_json_schema(self, call: Call) -> None:
        told = call("schema")
        assert (told.code, told.err) == (0, "")
        schema = json.loads(told.out)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert {"version", "name", "kind", "task", "model", "sweep"} <= set(schema["properties"])

    def test_doctor_as_json_exits_1_exactly_when_something_is_missing(self, call: Call, tmp_path: Path) -> None:
        told = call("doctor", "--json", "--home", tmp_path)
        findings = json.loads(told.out)
        assert {tuple(finding) for finding in findings} == {("what", "level", "found", "remedy")}
        assert told.code == int(any(finding["level"] == "missing" for finding in findings))

    def test_doctor_of_a_file_in_place_of_the_ledger_exits_1_with_the_remedy(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "ledger").write_text("")
        told = call("doctor", "--home", tmp_path / "ledger")
        assert told.code == 1
        assert f"{tmp_path / 'ledger'} is not a folder" in told.out
        assert "name another folder with --home or WATTLEDGER_HOME" in told.out


class TestProcess:
    @pytest.mark.parametrize("arguments", [("--help",), ("schema",), ("plan", QUICKSTART)])
    def test_the_module_is_the_command(self, arguments: tuple[str, ...]) -> None:
        installed = str(Path(sys.executable).with_name("wattledger"))
        ran = [
            subprocess.run(
                [*name, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=clean_environment()
            )
            for name in ([installed], [sys.executable, "-m", "orchestrator"])
        ]
        assert [(one.returncode, one.stdout, one.stderr) for one in ran] == [(0, ran[0].stdout, "")] * 2
        assert ran[0].stdout

    @pytest.mark.parametrize("arguments", [("schema",), ("plan", QUICKSTART), ("plan", QUICKSTART, "--json")])
    def test_a_reader_that_leaves_is_no_error(self, arguments: tuple[str, ...], tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        ran = subprocess.run(
            command(*arguments),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
            env=clean_environment(WATTLEDGER_HOME=str(tmp_path)),
        )
        os.close(writer)
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_an_exit_code_is_true_although_nobody_reads_the_table(self, tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        manifest = str(quick_manifest(tmp_path, accelerators="[K80]"))
        ran = subprocess.run(
            command("plan", manifest), stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
        os.close(writer)
        assert (ran.returncode, ran.stderr) == (2, "1 of 1 jobs can never run there.\n")

    def test_a_terminal_of_few_signs_still_gets_the_figures(self, ledger: Path) -> None:
        ran = subprocess.run(
            command("status", "--home", str(ledger)),
            capture_output=True,
            check=True,
            cwd=ROOT,
            env=clean_environment(PYTHONIOENCODING="ascii"),
        )
        assert ran.stderr == b""
        assert b"tiny/vit" in ran.stdout
        assert rb"\u2013" in ran.stdout, "the sign of what is unknown"

    def test_a_narrow_terminal_is_told_what_there_was_no_room_for(self, ledger: Path) -> None:
        out = on_terminal(105, "status", "--home", str(ledger))
        assert "no room for: model, seed, attempt (widen the terminal, or use --json)" in out
        assert "phase" in out.splitlines()[1]
        assert "attempt" not in out.splitlines()[1]
        wide = on_terminal(220, "status", "--home", str(ledger))
        assert "no room for" not in wide
        assert "attempt" in wide.splitlines()[1]


def on_terminal(columns: int, *arguments: str) -> str:
    """What a command shows on a terminal that wide, without its colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, columns))
    environment = clean_environment(TERM="xterm")
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as screen:  # noqa: PTH123 - a descriptor
        while part := screen.read(65536):
            shown += part
    assert process.wait(timeout=30) == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "")
