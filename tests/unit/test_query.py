"""``wattledger sql``, ``compact`` and ``rollup``: what they refuse and why, and what they answer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from orchestrator.books.query import Limits, ask
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import RunRecord, Store
from tests.unit.ledger import Ledger, at, entry, job, standard_entries
from tests.unit.test_cli import Call, call  # noqa: F401 (a fixture)
from workers.contract import Phase
from workers.errors import InputError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One job that took the standard 0.001 kWh, and 7 J of a job the store does not know."""
    made = Ledger(tmp_path / "it's a home")
    made.book(*standard_entries(), entry(20, 21, 7, job_id="stranger"))
    made.log_standard()
    with contextlib.closing(Store(made.home.state_db)) as store:
        run = RunRecord(run_id="run", name="study", manifest="", submitted_ns=at(-60), host="h", pid=1)
        store.submit(run, [job().spec])
        store.start_attempt("j", nodes=("node-1",), accelerator="T4", now_ns=at(-1))
        store.end_attempt("j", 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=at(15))
    return made


@pytest.mark.parametrize(
    "question",
    [
        "COPY jobs TO '{home}/energy/x.csv'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "ATTACH '{home}/other.db'",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO books.hours SELECT * FROM books.hours",
        "DELETE FROM books.files",
        "DROP VIEW jobs",
        "SET lock_configuration = false",
        "SET VARIABLE energy_files = ['/etc/passwd']",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA database_list",
        "EXPLAIN ANALYZE COPY jobs TO '/tmp/x.csv'",
        "EXPORT DATABASE '{home}/energy/x'",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_whatever_is_not_one_select_is_refused_and_leaves_no_trace(ledger: Ledger, question: str) -> None:
    before = sorted(ledger.home.root.rglob("*"))
    with pytest.raises(InputError, match="only one query is answered, a SELECT"):
        ask(ledger.home, question.format(home=ledger.home.root.as_posix().replace("'", "''")))
    after = [path for path in sorted(ledger.home.root.rglob("*")) if "derived" not in path.parts]
    assert after == before


@pytest.mark.parametrize(
    "source",
    [
        "read_csv('/etc/passwd')",
        "read_text('/etc/passwd')",
        "read_blob('/proc/self/environ')",
        "read_parquet('/etc/*')",
        "read_text('{home}/state.db')",
        "read_text('{home}/energy/../state.db')",
        "glob('/etc/*')",
        "read_csv('http://127.0.0.1:9/x.csv')",
    ],
)
def test_files_beyond_the_logs_are_not_read(ledger: Ledger, source: str) -> None:
    home = ledger.home.root.as_posix().replace("'", "''")
    with pytest.raises(InputError, match=r"nothing else|cannot answer"):
        ask(ledger.home, f"SELECT * FROM {source.format(home=home)}")


def test_a_mistake_is_told_in_duckdbs_words(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="Did you mean"):
        ask(ledger.home, "SELECT * FROM job")
    with pytest.raises(InputError, match="syntax error"):
        ask(ledger.home, "SELEKT 1")


def test_torn_files_cost_no_answer(ledger: Ledger) -> None:
    for folder in (ledger.home.energy("node-1") / "date=2024-01-01", ledger.home.metrics("j", 1)):
        for name, content in (("torn", b"PAR1 and no more"), ("empty", b""), ("tiny", b"PAR1")):
            (folder / f"{name}.parquet").write_bytes(content)
    assert ask(ledger.home, "SELECT count(*) FROM energy").rows == ((5,),)
    assert ask(ledger.home, "SELECT count(*) FROM metrics WHERE name = 'phase_start'").rows == ((4,),)
    assert ask(ledger.home, "SELECT count(*) FROM files WHERE problem IS NOT NULL").rows == ((3,),)


ANSWERS = {
    "SELECT account, sum(energy_mj) FROM energy_by_hour GROUP BY 1 ORDER BY 1": [
        ("job", 3_600_000),
        ("unattributed", 7000),
    ],
    "SELECT job_id, model, state, energy_kwh, method, quality FROM jobs": [
        ("j", "tiny/vit", "succeeded", 0.001, "counter", [])
    ],
    "SELECT phase, energy_mj FROM phases ORDER BY first_entry LIMIT 1": [("load", 900_000)],
    "SELECT attempt, node, energy_mj, ended - started = INTERVAL 16 SECOND FROM attempts": [
        (1, "node-1", 3_600_000, True)
    ],
    "SELECT value FROM metrics WHERE name = 'score/accuracy' AND phase = 'evaluate'": [(0.75,)],
    "SELECT node, job_id, sum(energy_mj)::BIGINT FROM energy GROUP BY ALL ORDER BY 2": [
        ("node-1", "j", 3_600_000),
        ("node-1", "stranger", 7000),
    ],
    "SELECT run_id, name FROM runs": [("run", "study")],
    "SELECT node, date, problem FROM files": [("node-1", "2024-01-01", None)],
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a": [(1,)],
}


@pytest.mark.parametrize(("question", "rows"), ANSWERS.items())
def test_the_views_answer(ledger: Ledger, question: str, rows: list[tuple[object, ...]]) -> None:
    assert ask(ledger.home, question).rows == tuple(rows)


def test_a_ledger_that_cannot_be_written_answers_too(ledger: Ledger) -> None:
    (ledger.home.root / "derived").write_text("a file where the folder would be")
    assert ask(ledger.home, "SELECT sum(energy_mj)::BIGINT FROM energy_by_hour").rows == ((3_607_000,),)
    with pytest.raises(InputError, match="only one query"):
        ask(ledger.home, "DELETE FROM books.hours")


# --- the command line


def test_sql_prints_json_csv_or_a_table(ledger: Ledger, call: Call) -> None:  # noqa: F811
    question = "SELECT job_id, submitted, energy_kwh, quality, 1/0 AS never FROM jobs"
    home = ("--home", ledger.home.root)
    told = call("sql", question, "--json", *home)
    assert told.code == 0
    assert json.loads(told.out) == [
        {"job_id": "j", "submitted": "2024-01-01T11:59:00Z", "energy_kwh": 0.001, "quality": [], "never": None}
    ]
    assert call("sql", question, "--csv", *home).out.splitlines() == [
        "job_id,submitted,energy_kwh,quality,never",
        "j,2024-01-01T11:59:00Z,0.001,[],",
    ]
    assert "1 row" in call("sql", question, *home).out
    assert call("sql", question, "--csv", "--json", *home).code == 2
    refused = call("sql", "DROP TABLE jobs", *home)
    assert (refused.code, refused.out) == (2, "")
    assert "never written" in refused.err


def test_a_question_that_takes_too_long_is_ended_with_what_to_do(ledger: Ledger) -> None:
    endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with pytest.raises(InputError, match=r"no answer after 0\.05 s. Ask for less"):
        ask(ledger.home, endless, Limits(seconds=0.05))
    assert ask(ledger.home, "SELECT 1", Limits(seconds=60)).rows == ((1,),)


def test_an_answer_of_too_many_rows_is_cut_and_says_so(ledger: Ledger, call: Call) -> None:  # noqa: F811
    home = ("--home", ledger.home.root)
    cut = call("sql", "SELECT range AS n FROM range(5)", "--csv", "--limit", "2", *home)
    assert cut.out.splitlines() == ["n", "0", "1"]
    assert "only the first 2 rows" in cut.err
    for limit in ("5", "0"):
        whole = call("sql", "SELECT range AS n FROM range(5)", "--csv", "--limit", limit, *home)
        assert (len(whole.out.splitlines()), whole.err) == (6, "")


def test_columns_of_one_name_are_shown_apart_or_refused(ledger: Ledger, call: Call) -> None:  # noqa: F811
    home = ("--home", ledger.home.root)
    assert call("sql", "SELECT 1 AS a, 2 AS a", *home).out.splitlines()[-2].split() == ["1", "2"]
    refused = call("sql", "SELECT 1 AS a, 2 AS a", "--json", *home)
    assert (refused.code, refused.out) == (2, "")
    assert "name them apart with AS" in refused.err


def test_waste_of_a_failed_attempt_without_entries_is_unknown_and_not_nothing(ledger: Ledger) -> None:
    with contextlib.closing(Store(ledger.home.state_db)) as store:
        run = RunRecord(run_id="more", name="study", manifest="", submitted_ns=at(0), host="h", pid=1)
        store.submit(run, [job(job_id="k").spec])
        store.start_attempt("k", nodes=("node-1",), accelerator="T4", now_ns=at(1))
        store.end_attempt("k", 1, state=AttemptState.FAILED, reason="lost", then=JobState.QUEUED, now_ns=at(2))
        store.start_attempt("k", nodes=("node-1",), accelerator="T4", now_ns=at(3))
    ledger.book(entry(3, 4, 5, job_id="k", number=2))
    assert ask(ledger.home, "SELECT job_id, wasted_mj FROM jobs ORDER BY ALL").rows == (("j", 0), ("k", None))


def test_the_grams_of_a_roll_up_are_shown_with_their_sources_and_what_lacks_them(
    ledger: Ledger,
    call: Call,  # noqa: F811
) -> None:
    home = ("--home", ledger.home.root)
    told = call("rollup", *home).out
    assert "carbon: WORLD: world average (default, no region was given)" in told
    assert "no CO2e: no manifest names the region of what no job drew" in told
    found = {line["account"]: line for line in json.loads(call("rollup", "--json", *home).out)}
    assert found["job"]["co2e_kg"] > 0
    assert (found["unattributed"]["co2e_kg"], found["unattributed"]["co2e_reason"][:18]) == (None, "no manifest names ")
    located = json.loads(call("rollup", "--json", "--region", "fr", "--pue", "1.2", *home).out)
    assert [line["carbon_sources"][0][:4] for line in located] == ["WORL", "FRA:"]
    assert "no CO2e" not in call("rollup", "--region", "FRA", *home).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--region", "Atlantis"], "unknown region 'Atlantis'"), (["--pue", "1.2"], "add --region")],
)
def test_a_place_that_makes_no_grams_is_told(
    ledger: Ledger,
    call: Call,  # noqa: F811
    arguments: list[str],
    message: str,
) -> None:
    refused = call("rollup", *arguments, "--home", ledger.home.root)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err


def test_a_roll_up_adds_up_and_says_so(ledger: Ledger, call: Call) -> None:  # noqa: F811
    home = ("--home", ledger.home.root)
    lines = json.loads(call("rollup", "model, phase", "--json", *home).out)
    assert sum(line["energy_mj"] for line in lines) == 3_607_000
    assert [line["phase"] for line in lines if line["account"] == "job"].index("train") == 0
    (kept,) = json.loads(call("rollup", "--where", "phase=load,train", "--json", *home).out)
    assert kept["energy_mj"] == 2_700_000
    shown = call("rollup", "model", *home).out
    assert "job 3600000 + idle 0 + unattributed 7000 = 3607000" in shown
    assert call("rollup", "--where", "phase", *home).code == 2
    wrong = call("rollup", "modle", *home)
    assert wrong.code == 2
    assert "Did you mean 'model'?" in wrong.err


def test_compact_tells_what_it_did(ledger: Ledger, call: Call) -> None:  # noqa: F811
    home = ("--home", ledger.home.root)
    ledger.book(entry(30, 31, 1, Phase.TRAIN), entry(31, 32, 1, Phase.TRAIN))
    told = json.loads(call("compact", "--json", *home).out)
    (done,) = told["days"]
    assert told["forgotten"] == {"jobs": 0, "bytes": 0, "events": 4}
    assert (done["node"], done["files"], done["entries"], done["entries_left"]) == ("node-1", 2, 7, 6)
    assert "nothing to compact" in call("compact", *home).out


def test_a_roll_up_says_what_it_lacks(ledger: Ledger, call: Call) -> None:  # noqa: F811
    home = ("--home", ledger.home.root)
    assert "missing" not in call("rollup", *home).out
    with contextlib.closing(Store(ledger.home.state_db)) as store:
        run = RunRecord(run_id="more", name="study", manifest="", submitted_ns=at(0), host="h", pid=1)
        store.submit(run, [job(job_id="k", accounting={"cpu_watts": 50.0, "dram_watts": 5.0}).spec])
        store.start_attempt("k", nodes=("node-1",), accelerator="T4", now_ns=at(1))
        assert "have no energy" not in call("rollup", *home).out
        store.end_attempt("k", 1, state=AttemptState.FAILED, reason="lost", then=JobState.FAILED, now_ns=at(2))
    (ledger.home.energy("node-1") / "date=2024-01-01" / "torn.parquet").write_bytes(b"PAR1")
    told = call("rollup", *home).out
    assert "1 file(s) of the energy log cannot be read" in told
    assert "1 attempt(s) that ended have no energy in the log" in told
    assert "1 job(s) have CPU or DRAM watts from their manifest" in told
    ledger.book(entry(1, 2, 5, job_id="k", kind="cpu", device="package-0"))
    told = call("rollup", *home).out
    assert "1 attempt(s) that ended have no energy" in told, "its GPU is still missing"
    assert "1 job(s) have CPU or DRAM watts" in told, "its CPU was metered after all; its memory is still assumed"
    ledger.book(entry(1, 2, 5, job_id="k", kind="dram", device="dram-0"))
    assert "DRAM watts" not in call("rollup", *home).out, "nothing is assumed of it any more"
