"""Scores are taken again of what an attempt wrote, without its model: the same figures, and others."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from workers.predictions import read_predictions, write_predictions, write_scores
from workers.quality.result import ScoreResult
from workers.rescore import main
from workers.tasks.data import Split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As an attempt leaves one: two questions, answered on two databases."""
    (tmp_path / "context").mkdir()
    databases = []
    for number in (1, 2):
        path = tmp_path / "context" / f"{number}.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"CREATE TABLE t (a INTEGER); INSERT INTO t VALUES ({number});")
        databases.append(path)
    test = Split(inputs=("one?", "two?"), labels=("SELECT a FROM t", "SELECT a FROM t"))
    besides = {"databases": databases, "log_probabilities": [np.log([0.5, 0.25]), np.log([0.125])]}
    write_predictions(tmp_path, "evaluate", test, ["SELECT 1", "SELECT 1"], besides=besides)
    write_scores(tmp_path, "evaluate", [ScoreResult(name="exact_match", value=0.25)])
    return tmp_path


def test_what_is_no_file_of_predictions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "has no predictions; name an attempt's folder" in capsys.readouterr().err
    (tmp_path / "predictions-evaluate.jsonl").write_text('{"input": "a", "label": 1}\n')
    assert main([str(tmp_path), "--score", "accuracy"]) == 2
    assert "cannot be read as predictions: KeyError: 'prediction'" in capsys.readouterr().err


def test_without_a_file_of_scores_some_must_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scores-evaluate.json").unlink()
    assert main([str(folder)]) == 2
    assert "name some with --score" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["bert_score", "rouge1=/models/bert", "bert_score="])
def test_an_encoder_of_no_score_of_meaning_is_refused(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--encoder", text]) == 2
    assert f"--encoder {text} is not SCORE=NAME" in capsys.readouterr().err


def test_an_unknown_score_is_refused_with_the_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--score", "rouge-1"]) == 2
    assert "Did you mean 'rouge1'" in capsys.readouterr().err


def test_the_scores_taken_before_are_taken_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == "evaluate  exact_match  0.0000\n"
    assert json.loads((folder / "scores-evaluate.json").read_text())["exact_match"]["value"] == 0.25


def test_queries_run_again_on_their_own_databases_wherever_the_folder_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    folder.rename(moved)
    assert main([str(moved / "predictions-evaluate.jsonl"), "--score", "execution_accuracy"]) == 0
    assert capsys.readouterr().out == "evaluate  execution_accuracy  0.5000\n"


def test_perplexity_is_taken_of_the_log_probabilities_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The cube root of 2 * 4 * 8.
    assert main([str(folder), "--score", "perplexity"]) == 0
    assert capsys.readouterr().out == "evaluate  perplexity  4.0000\n"


def test_a_score_that_cannot_be_taken_says_why(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder), "--score", "bert_score", "--encoder", f"bert_score={tmp_path / 'none'}"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("evaluate  bert_score  -  (no encoder: The scoring model ")


def test_what_is_written_joins_what_was_there(folder: Path) -> None:
    assert main([str(folder), "--score", "rouge1", "--write"]) == 0
    found = json.loads((folder / "scores-evaluate.json").read_text())
    assert found["exact_match"]["value"] == 0.25
    assert found["rouge1"]["value"] > 0


def test_class_indices_are_read_back_as_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = Split(inputs=np.zeros((3, 1, 2, 2), dtype=np.float32), labels=np.array([0, 1, 1]))
    path = write_predictions(tmp_path, "baseline", test, [0, 1, 0])
    assert read_predictions(path).answers == [0, 1, 0]
    assert main([str(path), "--score", "accuracy"]) == 0
    assert capsys.readouterr().out == "baseline  accuracy  0.6667\n"
