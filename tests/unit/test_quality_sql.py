"""Text-to-SQL, on real SQLite files: what a query may do, when two answers are the same, and BIRD's efficiency."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from workers.errors import InputError, UnknownNameError
from workers.quality.sql import evaluate, sorts

ALL = "SELECT name FROM cities"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def cities(tmp_path: Path) -> Path:
    """A database of three cities, two in one country."""
    path = tmp_path / "cities.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE cities (name TEXT, country TEXT, people INTEGER)")
        connection.executemany(
            "INSERT INTO cities VALUES (?, ?, ?)",
            [("Oslo", "NO", 700_000), ("Bergen", "NO", 290_000), ("Lund", "SE", 90_000)],
        )
    return path


class TickingClock:
    """Seconds that pass by ``step`` at each look."""

    def __init__(self, step: float) -> None:
        self.now, self._step = 0.0, step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


class ScriptedClock:
    """The times queries take, in the order they run, over and over. Models queries too short to be looked at midway."""

    def __init__(self, *seconds: float) -> None:
        self._seconds, self._looks, self._now = seconds, 0, 0.0

    def __call__(self) -> float:
        if self._looks % 2:
            self._now += self._seconds[self._looks // 2 % len(self._seconds)]
        self._looks += 1
        return self._now


def accuracy(path: Path, said: str, true: str, **given) -> float | None:
    return evaluate("execution_accuracy", [said], [true], databases=[path], **given).value


def test_an_unknown_score_is_refused(cities: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'execution_accuracy'"):
        evaluate("execution_acuracy", [ALL], [ALL], databases=[cities])


def test_a_database_for_each_query_is_asked_for(cities: Path) -> None:
    with pytest.raises(InputError, match="1 predictions cannot be scored against 2 databases; give one for each"):
        evaluate("execution_accuracy", [ALL], [ALL], databases=[cities, cities])


def test_a_database_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The database none.sqlite cannot be read .*; give an SQLite file"):
        accuracy(tmp_path / "none.sqlite", ALL, ALL)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(InputError, match="give an SQLite file"):
        accuracy(tmp_path / "text.sqlite", ALL, ALL)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "SELEC name FROM cities",
        "SELECT mayor FROM cities",
        "SELECT name FROM cities; SELECT 1",
        "SELECT ? FROM cities",
        "SELECT name FROM cities WHERE name = '\ud800'",
        "SELECT zeroblob(900000000)",
        "DELETE FROM cities",
        "DROP TABLE cities",
        "CREATE TEMP TABLE t (x)",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_table_info('cities')",
        "SELECT load_extension('libc')",
        "BEGIN",
        "VACUUM INTO 'stolen.sqlite'",
    ],
)
def test_a_query_that_fails_or_may_not_run_is_wrong_and_no_error(cities: Path, query: str) -> None:
    before = cities.read_bytes()
    assert accuracy(cities, query, ALL) == 0
    assert cities.read_bytes() == before
    assert [path.name for path in cities.parent.iterdir()] == ["cities.sqlite"]


@pytest.mark.parametrize("query", ["", ";", "-- SELECT name FROM cities"])
def test_no_query_is_wrong_even_where_the_answer_is_empty(cities: Path, query: str) -> None:
    assert accuracy(cities, query, "SELECT name FROM cities WHERE people < 0") == 0


def test_another_database_cannot_be_attached(cities: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    assert accuracy(cities, f"ATTACH '{other}' AS other", ALL) == 0
    assert not other.exists()


def test_a_query_that_runs_too_long_is_stopped_and_wrong(cities: Path) -> None:
    assert accuracy(cities, ENDLESS, ALL, limit_s=30, clock=TickingClock(1)) == 0


def test_an_answer_without_end_is_wrong(cities: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    assert accuracy(cities, endless, ALL) == 0


def test_a_wrong_query_does_not_spoil_the_next(cities: Path) -> None:
    said = ["DROP TABLE cities", ENDLESS, ALL]
    result = evaluate(
        "execution_accuracy", said, [ALL] * 3, databases=[cities] * 3, limit_s=30, clock=TickingClock(0.5)
    )
    assert result.per_item == (0, 0, 1)
    assert result.value == pytest.approx(1 / 3, rel=1e-12)


def test_an_item_whose_reference_fails_has_no_score_and_the_note_says_why(cities: Path) -> None:
    result = evaluate("execution_accuracy", [ALL, ALL], ["SELECT mayor FROM cities", ALL], databases=[cities] * 2)
    assert (result.value, result.per_item) == (1, (None, 1))
    assert result.note == (
        "a reference query fails: no such column: mayor; 1 of 2 items could not be scored and are left out"
    )


@pytest.mark.parametrize(
    ("said", "true", "same"),
    [
        ("SELECT name FROM cities ORDER BY people", ALL, True),
        (ALL, "SELECT name FROM cities ORDER BY people", False),
        ("SELECT name FROM cities ORDER BY people DESC", "SELECT name FROM cities ORDER BY people", False),
        ("SELECT DISTINCT country FROM cities", "SELECT country FROM cities", False),
        ("SELECT people, name FROM cities", "SELECT name, people FROM cities", False),
        ("SELECT count(*) FROM cities", "SELECT 3.0", True),
        ("SELECT NULL", "SELECT NULL", True),
        ("SELECT 0", "SELECT NULL", False),
        ("SELECT '3'", "SELECT 3", False),
        ("SELECT name FROM cities WHERE people < 0", "SELECT name FROM cities WHERE name = 'Rome'", True),
        ("SELECT name AS city FROM cities AS c WHERE c.country IN ('NO', 'SE');", ALL, True),
    ],
)
def test_answers_are_the_same_where_their_rows_are(cities: Path, said: str, true: str, same: bool) -> None:
    assert accuracy(cities, said, true) == same


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n by a limit 3", True),
        ("SELECT (SELECT b FROM u ORDER BY (b + (1)) LIMIT 1) FROM t", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'it''s an order by' FROM t -- order by a", False),
        ('SELECT "order by" FROM t /* order by\n a */', False),
        ("SELECT a FROM t WHERE b = '(' ORDER BY a", True),
    ],
)
def test_a_query_sorts_where_order_by_stands_outside_everything(query: str, expected: bool) -> None:
    assert sorts(query) is expected


def test_text_that_is_not_utf_8_can_be_compared(cities: Path) -> None:
    assert accuracy(cities, "SELECT CAST(x'ff41' AS TEXT)", "SELECT CAST(x'ff41' AS TEXT)") == 1


def test_efficiency_is_the_root_of_the_reference_s_time_over_the_prediction_s(cities: Path) -> None:
    # BIRD, arXiv 2305.03111, equation 4: √(4 s / 1 s). Each runs once to compare (reference first), then in turn.
    result = evaluate(
        "valid_efficiency", [ALL], [ALL], databases=[cities], repeats=3, clock=ScriptedClock(4, 1, 1, 4, 1, 4, 1, 4)
    )
    assert result.value == 2


def test_a_wrong_query_is_not_efficient_however_fast(cities: Path) -> None:
    said = [ALL, "SELECT 1", "SELECT"]
    result = evaluate(
        "valid_efficiency", said, [ALL] * 3, databases=[cities] * 3, repeats=1, clock=ScriptedClock(9, 1, 1, 9)
    )
    assert result.per_item is not None
    assert result.per_item[1:] == (0, 0)
    assert result.value == pytest.approx(sum(item or 0 for item in result.per_item) / 3, rel=1e-12)


def test_a_ratio_far_from_the_others_is_left_out(cities: Path) -> None:
    # Eleven pairs of (prediction, reference): ten of ratio 1 and one of 1000, over three deviations away.
    pairs = [1.0, 1.0] * 10 + [1.0, 1000.0]
    clock = ScriptedClock(1, 1, *pairs)
    result = evaluate("valid_efficiency", [ALL], [ALL], databases=[cities], repeats=11, limit_s=1e9, clock=clock)
    assert result.value == 1


def test_slow_queries_are_repeated_less_often(cities: Path) -> None:
    # To compare: 20 s each. A first pair of 40 s, after which no other is begun: its ratio, 4, is all there is.
    clock = ScriptedClock(20, 20, 8, 32, 1, 1)
    result = evaluate("valid_efficiency", [ALL], [ALL], databases=[cities], limit_s=35, clock=clock)
    assert result.value == 2


def test_where_no_time_is_seen_to_pass_there_is_no_efficiency(cities: Path) -> None:
    result = evaluate("valid_efficiency", [ALL], [ALL], databases=[cities], clock=lambda: 0.0)
    assert (result.value, result.per_item) == (None, None)


def test_the_same_query_is_about_as_efficient_as_itself(cities: Path) -> None:
    value = evaluate("valid_efficiency", [ALL], [ALL], databases=[cities]).value
    assert value is not None
    assert math.isfinite(value)
    assert value > 0


def test_items_keep_their_order_over_several_databases(cities: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    with closing(sqlite3.connect(empty)) as connection, connection:
        connection.execute("CREATE TABLE cities (name TEXT)")
    result = evaluate(
        "execution_accuracy",
        ["SELECT 'Oslo'", ALL, "SELECT 'Oslo'"],
        ["SELECT name FROM cities LIMIT 1"] * 3,
        databases=[cities, empty, empty],
    )
    assert result.per_item == (1, 1, 0)
