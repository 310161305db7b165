"""Task ``text-to-sql``: put a question to a database as a query.

Data: ``synthetic_text_to_sql`` (Gretel, 2024), Apache 2.0, fetched from the hub when a job needs it: questions, each
with the statements that make its database; and ``questions-tiny``, made here: real SQLite databases of one table.

A base model built from a configuration learns to count and to list (``source``), and is fine-tuned on questions of
which two in three want a sum, a mean or an order.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

from workers.tasks.data import Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

HUB = {
    "synthetic_text_to_sql": HubData(
        path="gretelai/synthetic_text_to_sql",
        splits={"train": "train", "test": "test"},
        columns=("sql_prompt", "sql_context", "sql"),
        licence="Apache 2.0",
    )
}
DATA_SEED = 0
"""The same questions in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1200, 1500, 100
TABLES = {
    "employees": ("salary", "age", "bonus"),
    "products": ("price", "stock", "weight"),
    "cities": ("area", "height", "homes"),
    "books": ("pages", "year", "sales"),
}
ROWS = 12
"""Of each table."""
LIMITS = (20, 40, 60, 80)
KINDS = {
    "count": ("How many {table} have {column} above {limit}?", "SELECT COUNT(*) FROM {table} WHERE {column} > {limit}"),
    "list": ("Which {table} have {column} above {limit}?", "SELECT name FROM {table} WHERE {column} > {limit}"),
    "sum": ("What is the total {column} of {table}?", "SELECT SUM({column}) FROM {table}"),
    "mean": ("What is the mean {column} of {table}?", "SELECT AVG({column}) FROM {table}"),
    "order": ("List {table} by {column}, highest first.", "SELECT name FROM {table} ORDER BY {column} DESC"),
    "most": ("Which of the {table} has most {column}?", "SELECT name FROM {table} ORDER BY {column} DESC LIMIT 1"),
}
SOURCE_KINDS = ("count", "list")


def load(dataset: str, seed: int) -> TaskData:
    """Prompts with a schema and a question, and queries; the scores' context is a database file for each.

    Args:
        dataset: ``synthetic_text_to_sql`` or ``questions-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(HUB[dataset], _pairs, longest_input=1024, longest_answer=256, context_of=_databases)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    early, late = (partial(_question, made, kinds) for kinds in (SOURCE_KINDS, tuple(KINDS)))
    test = [late() for _ in range(TEST_SAMPLES)]
    source = unlike(test, early, SOURCE_SAMPLES, key=itemgetter("key"))
    train = unlike(test, late, TRAIN_SAMPLES, key=itemgetter("key"))
    return TaskData(
        source=_pairs(source),
        train=_pairs(train),
        test=_pairs(test),
        longest_input=160,
        longest_answer=32,
        context=_databases(test),
    )


class _Databases:
    """Makes the database files of the test split."""

    def __init__(self, scripts: Sequence[str]) -> None:
        self._scripts = scripts

    def __call__(self, folder: Path, count: int) -> Mapping[str, object]:
        """A file for each of the first ``count`` questions; those with the same statements share one."""
        folder.mkdir(parents=True, exist_ok=True)
        return {"databases": [database_of(script, folder) for script in self._scripts[:count]]}


def _databases(rows: Sequence[Mapping[str, str]]) -> _Databases:
    return _Databases([row["sql_context"] for row in rows])


def database_of(script: str, folder: Path) -> Path:
    """The SQLite file that the statements of ``script`` make, in ``folder``; made anew unless it is there.

    A statement that fails ends it: a reference query that needed more then fails, and its question has no figure.
    """
    path = folder / f"{hashlib.sha256(script.encode()).hexdigest()[:20]}.sqlite"
    if not path.exists():
        with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
            connection.executescript(script)
    return path


def schema_of(script: str) -> str:
    """The statements of ``script`` that make tables and views, without the rows."""
    return " ".join(part.strip() + ";" for part in script.split(";") if re.match(r"\s*CREATE\b", part, re.IGNORECASE))


def _pairs(rows: Sequence[Mapping[str, str]]) -> TextPairs:
    return Split(
        inputs=tuple(f"{schema_of(row['sql_context'])}\n{row['sql_prompt']}\nSQL:" for row in rows),
        labels=tuple(row["sql"] for row in rows),
    )


def _question(made: random.Random, kinds: Sequence[str]) -> dict[str, str]:
    table = made.choice(tuple(TABLES))
    columns = made.sample(TABLES[table], 3)
    said = {"table": table, "column": made.choice(columns), "limit": made.choice(LIMITS)}
    question, query = KINDS[made.choice(tuple(kinds))]
    prompt = question.format(**said)
    return {
        "sql_prompt": prompt,
        "sql_context": _script(made, table, columns),
        "sql": query.format(**said),
        "key": f"{columns} {prompt}",
    }


def _script(made: random.Random, table: str, columns: Sequence[str]) -> str:
    numbers = [made.sample(range(100), ROWS) for _ in columns]
    rows = ", ".join(
        f"('{table[0]}{place}', {', '.join(str(column[place]) for column in numbers)})" for place in range(ROWS)
    )
    typed = ", ".join(f"{column} INTEGER" for column in columns)
    return f"CREATE TABLE {table} (name TEXT, {typed}); INSERT INTO {table} VALUES {rows};"  # noqa: S608 - all of it made here
