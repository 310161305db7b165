"""Text-to-SQL: does the predicted query answer as the reference does, and how fast? On real SQLite databases.

A query runs on an in-memory copy of its database, may only read, and is stopped when its time is up. One that fails,
is stopped or answers too much is wrong, and no error.
"""

from __future__ import annotations

import math
import re
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.errors import InputError, UnknownNameError
from workers.quality.result import ScoreResult, averaged, check_pairs

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
"""What a query may do; so not ATTACH, PRAGMA, or any write."""
_STEPS = 10_000
"""Instructions of SQLite's machine between looks at the clock: under a millisecond."""
_LONGEST_VALUE = 50_000_000
"""Bytes of the longest text, blob or row; SQLite's own limit is 1 GB, which one ``zeroblob`` could take."""
_MOST_ROWS = 200_000
"""Rows of the largest answer."""

_Rows = list[tuple[object, ...]]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a query came to: its rows and how long it took, s; or the reason why there are none."""

    rows: _Rows
    seconds: float
    failure: str | None = None


def evaluate(
    name: str,
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    databases: Sequence[Path],
    limit_s: float = 30.0,
    repeats: int = 100,
    clock: Callable[[], float] = time.thread_time,
) -> ScoreResult:
    """``execution_accuracy`` or ``valid_efficiency`` of queries; the value is the mean of the items.

    Two answers are the same where they hold the same rows equally often, columns in the same order; where the
    reference sorts at its top level, the rows must also come in the same order (as Spider's test suite has it, without
    its search through the orders of columns; BIRD compares sets of rows, and so overlooks order and repetition).

    ``valid_efficiency`` is BIRD's (arXiv 2305.03111): 0 where the answer is wrong, else the square root of the time of
    the reference over that of the prediction; here 1, not 100, is as fast as the reference. The ratio is the mean of
    ``repeats`` ratios after those beyond three standard deviations are dropped, as in BIRD's script.

    An item whose reference itself fails has no figure, and the note says so.

    Args:
        name: the score.
        predictions: one query each.
        references: the right query of each.
        databases: the SQLite file of each; neighbours with the same file share one copy.
        limit_s: how long a query may run, s.
        repeats: how often both queries run for ``valid_efficiency``, at most; as in BIRD's script. Of ten, no one can
            be three standard deviations from their mean, and one that was interrupted made a score of 2.4.
        clock: seconds, from anywhere; this thread's on the CPU, as nothing waits for a disk here. BIRD's runs on while
            others use the core.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one of each, or a database that cannot be read.
    """
    if name not in ("execution_accuracy", "valid_efficiency"):
        raise UnknownNameError("score", name, ("execution_accuracy", "valid_efficiency"))
    check_pairs(name, len(predictions), len(references))
    check_pairs(name, len(predictions), len(databases), what="databases")
    items: list[float | None] = [None] * len(predictions)
    broken: list[str] = []
    for path, places in _by_database(databases).items():
        with _copy(path) as connection:
            bench = _Bench(connection, limit_s, clock)
            for place in places:
                reference = bench.run(references[place])
                if reference.failure is not None:
                    broken.append(reference.failure)
                    continue
                predicted = bench.run(predictions[place])
                right = predicted.failure is None and same_answer(references[place], reference.rows, predicted.rows)
                timed = right and name == "valid_efficiency"
                items[place] = (
                    bench.efficiency(predictions[place], references[place], repeats) if timed else right * 1.0
                )
    note = f"a reference query fails: {broken[0]}" if broken else None
    return averaged(name, items, note=note)


def same_answer(query: str, wanted: _Rows, given: _Rows) -> bool:
    """Whether ``given`` is the answer ``wanted`` of the reference ``query``; order counts only where it sorts."""
    return wanted == given if sorts(query) else Counter(wanted) == Counter(given)


def sorts(query: str) -> bool:
    """Whether the query sorts its answer: ORDER BY outside parentheses, texts, quoted names and comments."""
    plain = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL)
    while (inner := re.sub(r"\([^()]*\)", " ", plain)) != plain:
        plain = inner
    return re.search(r"\border\s+by\b", plain, flags=re.IGNORECASE) is not None


class _Bench:
    """Runs queries on one copy."""

    def __init__(self, connection: sqlite3.Connection, limit_s: float, clock: Callable[[], float]) -> None:
        self._connection, self._limit_s, self._clock = connection, limit_s, clock

    def run(self, query: str) -> _Answer:
        """The query's answer; its failure where it has none."""
        started = self._clock()
        late = started + self._limit_s
        self._connection.set_progress_handler(lambda: self._clock() > late, _STEPS)
        try:
            with closing(self._connection.execute(query)) as cursor:
                rows = cursor.fetchmany(_MOST_ROWS + 1)
                is_query = cursor.description is not None
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError, OverflowError) as error:
            return _Answer(rows=[], seconds=self._clock() - started, failure=str(error))
        seconds = self._clock() - started
        if not is_query:
            return _Answer(rows=[], seconds=seconds, failure="no query")
        failure = f"more than {_MOST_ROWS} rows" if len(rows) > _MOST_ROWS else None
        return _Answer(rows=rows, seconds=seconds, failure=failure)

    def efficiency(self, prediction: str, reference: str, repeats: int) -> float | None:
        """The square root of the usual ratio of the two times; ``None`` where the clock saw none pass.

        No pair is begun once those before it took longer than one query may.
        """
        ratios: list[float] = []
        spent = 0.0
        for _ in range(repeats):
            if spent > self._limit_s:
                break
            predicted, wanted = self.run(prediction), self.run(reference)
            spent += predicted.seconds + wanted.seconds
            if predicted.failure is None and wanted.failure is None and predicted.seconds > 0:
                ratios.append(wanted.seconds / predicted.seconds)
        return math.sqrt(_usual(ratios)) if ratios else None


def _usual(ratios: Sequence[float]) -> float:
    """The mean of those within three standard deviations of the mean of all."""
    middle, spread = statistics.fmean(ratios), statistics.pstdev(ratios)
    return statistics.fmean([one for one in ratios if abs(one - middle) <= 3 * spread] or ratios)


def _by_database(databases: Sequence[Path]) -> dict[Path, list[int]]:
    """Which items each database has, so that one copy is in memory at a time."""
    places: dict[Path, list[int]] = {}
    for place, path in enumerate(databases):
        places.setdefault(Path(path), []).append(place)
    return places


@contextmanager
def _copy(path: Path) -> Iterator[sqlite3.Connection]:
    """An in-memory copy of the database that can only be read; the file is opened read-only.

    Raises:
        InputError: it cannot be read.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
                file.backup(connection)
        except sqlite3.Error as error:
            raise InputError(f"The database {path.name} cannot be read ({error}); give an SQLite file.") from error
        connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        yield connection
