"""The tasks of text: tiny data is fixed, held-out examples are never learned from, and what is promised is so."""

from __future__ import annotations

import importlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import pytest

from workers.errors import JobError, UnknownNameError
from workers.quality.registry import SCORES, evaluate, score_info
from workers.tasks import TASKS, load_task
from workers.tasks.data import TaskData, unlike
from workers.tasks.hub import HubData, rows_of
from workers.tasks.text_generation import NEXT_WORDS, PROMPT_WORDS, passages
from workers.tasks.text_to_sql import database_of, schema_of
from workers.training.families import FAMILIES

TEXTS = (
    "dialogue-summarisation",
    "masked-language-modelling",
    "paper-highlights",
    "question-answering",
    "summarisation",
    "text-classification",
    "text-generation",
    "text-to-sql",
    "token-classification",
)

PAIRS = ("dialogue-summarisation", "paper-highlights", "summarisation", "text-generation", "text-to-sql")


@pytest.fixture(scope="module")
def data() -> dict[str, TaskData]:
    return {name: load_task(name, None, seed=0) for name in TEXTS}


def test_a_data_set_of_another_task_is_refused_with_the_tasks_own() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set of task text-to-sql 'samsum'.*questions-tiny"):
        load_task("text-to-sql", "samsum", seed=0)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_names_families_scores_and_a_tiny_data_set_that_exist(name: str) -> None:
    info = TASKS[name]
    assert set(info.families) <= set(FAMILIES)
    assert set(info.metrics) <= set(SCORES)
    assert info.tiny in info.datasets
    assert info.lower_is_better == {metric for metric in info.metrics if not score_info(metric).higher_is_better}


@pytest.mark.parametrize("name", TEXTS)
def test_tiny_data_is_the_same_for_every_seed(data: dict[str, TaskData], name: str) -> None:
    again = load_task(name, TASKS[name].tiny, seed=7)
    for split in ("source", "train", "test"):
        one, other = getattr(data[name], split), getattr(again, split)
        assert one.inputs == other.inputs
        assert list(one.labels) == list(other.labels)


@pytest.mark.parametrize("name", TEXTS)
def test_no_example_is_both_learned_from_and_scored(data: dict[str, TaskData], name: str) -> None:
    held_out = set(data[name].test.inputs)
    assert held_out.isdisjoint(data[name].train.inputs)
    assert data[name].source is not None
    assert held_out.isdisjoint(data[name].source.inputs)


def test_a_row_with_the_key_of_one_held_out_is_drawn_again() -> None:
    drawn = iter([("a", 1), ("b", 2), ("a", 3), ("c", 4), ("d", 5)])
    assert unlike([("a", 0)], lambda: next(drawn), 2, key=itemgetter(0)) == [("b", 2), ("c", 4)]
    assert next(drawn) == ("d", 5)


def test_rows_without_a_key_are_held_out_whole() -> None:
    drawn = iter([("a", 1), ("a", 0), ("b", 0)])
    assert unlike([("a", 0)], lambda: next(drawn), 2) == [("a", 1), ("b", 0)]


def test_the_right_query_of_every_tiny_question_answers_on_its_own_real_database(
    data: dict[str, TaskData], tmp_path: Path
) -> None:
    task = data["text-to-sql"]
    queries, context = list(task.test.labels), task.context(tmp_path, len(task.test))
    result = evaluate("execution_accuracy", queries, queries, context=context)
    assert (result.value, result.note) == (1.0, None)
    wrong = evaluate("execution_accuracy", ["SELECT 1"] * len(queries), queries, context=context)
    assert wrong.value == 0.0


def test_a_database_is_made_once_and_holds_what_its_statements_say(tmp_path: Path) -> None:
    script = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (3), (4);"
    path = database_of(script, tmp_path)
    made = path.stat().st_mtime_ns
    assert database_of(script, tmp_path) == path
    assert path.stat().st_mtime_ns == made
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT SUM(a) FROM t").fetchall() == [(7,)]


def test_statements_that_fail_leave_a_database_on_which_the_reference_fails(tmp_path: Path) -> None:
    path = database_of("CREATE TABLE t (a INTEGER); NONSENSE;", tmp_path)
    result = evaluate("execution_accuracy", ["SELECT 1"], ["SELECT b FROM t"], context={"databases": [path]})
    assert result.value is None


def test_a_prompt_tells_the_tables_and_not_their_rows() -> None:
    script = "CREATE TABLE t (a INTEGER); insert into t values (3); create view v as select a from t;"
    assert schema_of(script) == "CREATE TABLE t (a INTEGER); create view v as select a from t;"


def test_the_right_query_takes_about_as_long_as_itself(data: dict[str, TaskData], tmp_path: Path) -> None:
    queries, task = list(data["text-to-sql"].test.labels[:5]), data["text-to-sql"]
    assert TASKS["text-to-sql"].metrics[:2] == ("execution_accuracy", "valid_efficiency")
    value = evaluate("valid_efficiency", queries, queries, context=task.context(tmp_path, 5)).value
    assert value is not None
    assert 0.3 < value < 3
    assert evaluate("valid_efficiency", ["SELECT 1"] * 5, queries, context=task.context(tmp_path, 5)).value == 0


def test_short_texts_are_put_together_and_what_is_left_of_a_long_one_is_dropped() -> None:
    sentences = [" ".join(f"w{number}" for number in range(start, start + 12)) for start in range(0, 240, 12)]
    found = list(passages([*sentences[:17], " ".join(["long"] * 500)]))
    assert [(len(prompt.split()), len(ending.split())) for prompt, ending in found] == [(PROMPT_WORDS, NEXT_WORDS)] * 3
    assert found[0][0].split()[0], found[0][1].split()[-1] == ("w0", "w95")
    assert found[1][0].startswith("w96 ")
    assert found[2][0].startswith("w192 ")
    assert found[2][1] == " ".join(["long"] * NEXT_WORDS)


# Data sets of the hub: folders stand in for them


def folder(path: Path, *, columns: tuple[str, ...] = ("dialogue", "summary")) -> HubData:
    lines = ['{"dialogue": "A: hi", "summary": "A greets."}', '{"dialogue": "", "summary": "Nobody."}']
    for split in ("train", "test"):
        (path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return HubData(path=str(path), splits={"train": "train", "test": "test"}, columns=columns, licence="CC0")


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("_own_cache")
def test_a_data_set_without_the_column_is_told_with_those_it_has(tmp_path: Path) -> None:
    data = folder(tmp_path, columns=("dialogue", "highlights"))
    with pytest.raises(JobError, match=r"has no column highlights; it has dialogue, summary\. Choose another dataset"):
        rows_of(data, "train")


@pytest.mark.usefixtures("_own_cache")
def test_a_data_set_that_cannot_be_had_is_a_fact_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    data = HubData(path="nobody/nothing", splits={"train": "train"}, columns=("a",), licence="none")
    with pytest.raises(JobError, match=r"data set nobody/nothing cannot be loaded: .*\. Give this node access"):
        rows_of(data, "train")


@pytest.mark.usefixtures("_own_cache")
def test_rows_in_which_a_column_is_empty_are_left_out(tmp_path: Path) -> None:
    assert rows_of(folder(tmp_path), "test") == [{"dialogue": "A: hi", "summary": "A greets."}]


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize("name", PAIRS)
def test_every_data_set_of_the_hub_gives_prompts_and_answers_of_its_columns(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(TASKS[name].module)
    assert {*module.HUB, TASKS[name].tiny} == set(TASKS[name].datasets)
    for chosen, data in module.HUB.items():
        place = tmp_path / chosen
        place.mkdir()
        row = {column: " ".join(f"{column}{place}" for place in range(96)) for column in data.columns}
        for split in ("train", "test"):
            (place / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
        standing_in = replace(
            data, path=str(place), splits={"train": "train", "test": "test"}, config=None, revision=None, folder=None
        )
        monkeypatch.setitem(module.HUB, chosen, standing_in)
        loaded = load_task(name, chosen, seed=0)
        assert loaded.source is None
        assert len(loaded.train) == len(loaded.test) == 1
        assert data.columns[0] in loaded.test.inputs[0] or data.columns[1] in loaded.test.inputs[0]
        assert data.columns[-1] in loaded.test.labels[0]
        assert loaded.test.labels[0] not in loaded.test.inputs[0]


@pytest.mark.usefixtures("_own_cache")
def test_highlights_are_read_from_a_folder_of_the_users(tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    for split in ("train", "test"):
        (papers / f"{split}.csv").write_text(f'Abstract,Highlights\n"On {split}, at length.","Says {split}."\n')
    loaded = load_task("paper-highlights", str(papers), seed=0)
    assert loaded.test.inputs == ("Abstract: On test, at length.\nHighlights:",)
    assert loaded.train.labels == ("Says train.",)


@pytest.mark.usefixtures("_own_cache")
def test_a_folder_without_highlights_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"has no column Abstract, Highlights; it has dialogue, summary\."):
        load_task("paper-highlights", folder(tmp_path).path, seed=0)


def test_a_folder_is_no_data_set_of_a_task_that_takes_none() -> None:
    with pytest.raises(UnknownNameError, match="unknown data set of task summarisation '/data/news'"):
        load_task("summarisation", "/data/news", seed=0)
