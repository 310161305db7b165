"""``wattledger report`` and ``budget`` as a person types them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.accounting.row import FIELDS
from orchestrator.cli import main
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import RunRecord, Store
from tests.unit.ledger import Ledger, at, entry, standard_entries
from workers.contract import JobSpec, Method, Phase

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path) -> Call:
    """Run ``wattledger`` on the ledger; gives exit code, standard output and standard error."""
    for name in ("WATTLEDGER_PROMETHEUS_URL", "WATTLEDGER_PROMETHEUS_CONFIG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WATTLEDGER_HOME", str(ledger))

    def answer(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["wattledger", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return (int(left.value.code or 0), *capsys.readouterr())

    return answer


def spec(job_id: str, name: str, **more: object) -> JobSpec:
    return JobSpec.model_validate(
        {"job_id": job_id, "name": name, "task": "digits", "model": "tiny/vit", "accounting": {"project": "moon"}}
        | more
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Ada's run of ``a`` (3,600 J on a T4) and ``b`` (no log), and Bob's of ``c`` (1,800 J, simulated); idle 900 J."""
    made = Ledger(tmp_path / "ledger")
    made.log_standard(job_id="a")
    made.book(*standard_entries(job_id="a"), entry(20, 30, 1800, Phase.TRAIN, job_id="c", method=Method.SIMULATED))
    with contextlib.closing(Store(made.home.state_db)) as store:
        for run_id, user, jobs in (
            ("first-1", "ada", [spec("a", "first"), spec("b", "first", model="tiny/convnext")]),
            ("second-1", "bob", [spec("c", "second")]),
        ):
            submitted_ns = at(-60 if run_id == "first-1" else -50)
            record = RunRecord(
                run_id=run_id, name=run_id[:-2], manifest="", submitted_ns=submitted_ns, host="h", pid=1, user=user
            )
            store.submit(record, jobs)
        for job_id in "abc":
            store.start_attempt(job_id, nodes=("f00d",), accelerator="T4", now_ns=at(-1))
            store.end_attempt(
                job_id, 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=at(40)
            )
    return made.home.root


BAD = {
    "a format": (["--format", "xml"], "unknown format 'xml'"),
    "a field": (["--where", "modle=x"], "unknown field 'modle'. Did you mean 'model'?"),
    "no condition": (["--where", "model"], "'model' is no condition"),
    "a key": (["--by", "score"], "unknown key of a group 'score'"),
    "a column": (["--columns", "energy"], "unknown column 'energy'"),
    "a sort": (["--sort", "energy", "--columns", "job_id"], "unknown field 'energy'"),
    "parquet without a file": (["--format", "parquet"], "Parquet is no text. Name a file"),
    "a table in a file": (["--format", "table", "--out", "x"], "a table is for the terminal"),
    "a run of all": (["first", "--all"], "first is one run, and --all means all of them"),
    "a configuration": (["--prometheus-config", "/nowhere.yml"], "the configuration /nowhere.yml cannot be read"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_told_with_what_can(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call("report", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_file_that_cannot_be_written_is_told(call: Call, ledger: Path) -> None:
    code, _, err = call("report", "--format", "csv", "--out", ledger / "state.db" / "x.csv")
    assert code == 2
    assert "cannot be written" in err


def test_conditions_that_nothing_meets_are_an_empty_report(call: Call, tmp_path: Path) -> None:
    assert call("report", "--all", "--where", "user=eve", "--json") == (0, "[]\n", "")
    assert call("report", "--all", "--where", "user=eve")[0] == 0
    code, out, _ = call("report", "--all", "--where", "user=eve", "--columns", "job_id")
    assert (code, "no job meets all of these conditions" in out) == (0, True)
    code, _, err = call(
        "report", "--all", "--where", "user=eve", "--format", "parquet", "--out", tmp_path / "x.parquet"
    )
    assert (code, "nothing to write" in err) == (2, True)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_all_runs_are_filtered_by_who_and_what_and_sorted(call: Call) -> None:
    def ids(*arguments: str) -> str:
        code, out, err = call("report", "--all", *arguments, "--columns", "job_id", "--format", "csv")
        assert (code, err) == (0, "")
        return "".join(row["job_id"] for row in rows(out))

    assert ids() == "abc"
    assert ids("--where", "user=ada") == "ab"
    assert ids("--where", "user=ada", "--where", "model=tiny/vit") == "a"
    assert ids("--where", "project=moon", "--sort", "-energy_kwh") == "acb"
    assert ids("--where", "date=2024-01-01", "--sort", "-job_id") == "cba"
    assert ids("--where", "energy_kwh=null") == "b"


def test_json_keeps_the_contract_whatever_is_filtered_and_sorted(call: Call) -> None:
    code, out, _ = call("report", "--all", "--json", "--sort", "-energy_kwh", "--where", "energy_kwh!=null")
    assert code == 0
    found = json.loads(out)
    assert [tuple(row) for row in found] == [FIELDS, FIELDS]
    assert [row["job_id"] for row in found] == ["a", "c"]


def test_sums_by_user_count_each_job_and_tell_what_they_lack(call: Call) -> None:
    code, out, err = call("report", "--all", "--by", "user", "--format", "csv")
    assert (code, err) == (0, "")
    found = [
        (r["user"], r["account"], r["jobs"], r["jobs_unknown"], r["energy_kwh"], r["energy_method"]) for r in rows(out)
    ]
    assert found == [("ada", "job", "2", "1", "0.001", "counter"), ("bob", "job", "1", "0", "0.0005", "simulated")]


def test_sums_by_node_and_day_have_what_was_nobodys(call: Call, ledger: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    made = Ledger(ledger)
    made.book(replace(entry(30, 40, 900), job_id=None, attempt=None), entry(40, 41, 360, job_id="stranger"))
    code, out, _ = call("report", "--all", "--by", "node,day", "--json")
    assert code == 0
    assert [(one["node"], one["account"], one["energy_kwh"]) for one in json.loads(out)] == [
        ("node-1", "job", 0.0015),
        (None, "job", None),
        ("node-1", "idle", 0.00025),
        ("node-1", "unattributed", 0.0001),
    ]
    assert "idle" not in call("report", "--all", "--by", "node,user", "--json")[1], "idle has no user"
    assert "idle" not in call("report", "--by", "node", "--json")[1], "one run is not the cluster"
    told = " ".join(call("report", "--all")[1].split())
    assert "jobs 1.50 Wh + idle 0.250 Wh + unattributed 0.100 Wh = 1.85 Wh (simulated)" in told
    page = tmp_path / "page"
    call("report", "--all", "--out", page)
    assert "Jobs 1.50 Wh + idle 0.250 Wh" in (page / "report.html").read_text()
    assert "idle" not in call("report")[1], "one run is not the cluster"
    assert "idle" not in call("report", "--all", "--where", "user=ada")[1], "nor are some of the jobs"


def test_a_simulated_figure_says_so_in_every_format(call: Call, tmp_path: Path) -> None:
    for form in ("table", "csv", "json", "markdown", "latex"):
        code, out, _ = call("report", "second", "--columns", "job_id,energy_kwh", "--format", form)
        assert code == 0
        assert "simulated" in out, form
    call("report", "second", "--columns", "job_id,energy_kwh", "--format", "parquet", "--out", tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [
        {"job_id": "c", "energy_kwh": 0.0005, "energy_method": "simulated"}
    ]


@pytest.mark.parametrize("form", ["csv", "json", "markdown", "latex"])
def test_a_file_holds_what_the_terminal_would_show(call: Call, tmp_path: Path, form: str) -> None:
    shown = call("report", "first", "--format", form)[1]
    path = tmp_path / "new" / f"table.{form}"
    assert call("report", "first", "--format", form, "--out", path) == (0, "", f"wrote {path}\n")
    assert path.read_text(encoding="utf-8").splitlines() == shown.splitlines()


def test_details_are_told_for_people_and_programs(call: Call) -> None:
    code, out, _ = call("report", "first", "--details")
    assert code == 0
    assert "a: loading took 0.250 Wh" in out
    assert "train" in out
    assert "note: the energy log has no GPU of attempt 1" in out
    found = json.loads(call("report", "first", "--details", "--json")[1])
    assert found["a"]["user"] == "ada"
    assert found["a"]["phases"]["train"]["joules_per_sample"] == 1.8
    assert found["b"]["reasons"]["load.energy_wh"]


def test_a_budget_without_a_limit_an_owner_or_a_period_is_refused(call: Call) -> None:
    assert "a budget needs a limit" in call("budget", "set", "--user", "ada")[2]
    assert "a budget is of one" in call("budget", "set", "--energy-kwh", 1)[2]
    assert "a budget is of one" in call("budget", "set", "--energy-kwh", 1, "--user", "ada", "--team", "t")[2]
    assert "unknown period 'year'" in call("budget", "set", "--energy-kwh", 1, "--user", "ada", "--per", "year")[2]
    assert "user ada has no budget per day" in call("budget", "remove", "--user", "ada", "--per", "day")[2]


def test_a_budget_is_set_shown_and_taken_back(call: Call) -> None:
    assert "none is set" in call("budget", "show")[1]
    told = call("budget", "set", "--project", "moon", "--energy-kwh", "0.001", "--co2e-kg", "5")
    assert told == (0, "project moon has 0.00100 kWh and 5.00 kg CO2e\n", "")
    (found,) = json.loads(call("budget", "show", "--json")[1])
    assert found["energy_kwh"] == {
        "budget": 0.001,
        "spent": 0.0015,
        "predicted": None,
        "left": pytest.approx(-0.0005, rel=1e-9),
    }
    assert (found["jobs"], found["jobs_unknown"], found["energy_method"]) == (3, ["b"], "simulated")
    code, out, _ = call("budget", "show")
    assert code == 0
    shown = next(line.split() for line in out.splitlines() if line.startswith("project moon"))
    assert shown[4:7] == ["0.00100", "0.00150", "−0.000500"]
    assert shown[7] == "5.00"
    assert float(shown[8]) + float(shown[9]) == pytest.approx(5.0, abs=0.01), "kilograms, not the kilowatt-hours again"
    for sentence in ("EXCEEDED: project moon", "not counted, since not known: b", "SIMULATED"):
        assert sentence in out
    assert call("budget", "remove", "--project", "moon") == (0, "", "")
    assert json.loads(call("budget", "show", "--json")[1]) == []


def test_a_budget_may_be_set_before_the_first_run(call: Call, tmp_path: Path) -> None:
    home = ["--home", tmp_path / "new"]
    assert call("budget", "set", "--user", "ada", "--energy-kwh", 1, "--per", "week", *home)[0] == 0
    (found,) = json.loads(call("budget", "show", "--json", *home)[1])
    assert (found["period"], found["jobs"], found["energy_kwh"]["left"]) == ("week", 0, 1.0)


def test_nothing_is_stopped_for_a_budget_and_the_help_says_so(call: Call) -> None:
    assert "Nothing is stopped or capped for one yet" in " ".join(call("budget", "--help")[1].split())
