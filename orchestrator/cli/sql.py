"""``wattledger sql``: a question to the books, in SQL."""

from __future__ import annotations

import csv
import datetime
import io
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import options
from orchestrator.cli.terminal import Column, console, print_table, print_text
from orchestrator.report.figures import UNKNOWN
from workers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.books.query import Answer

MOST_ROWS = 100_000
MOST_S = 300.0
HELP = """Answer one SELECT (DuckDB's SQL) over the ledger. It reads, and only this ledger; times are UTC.

Views:\n
\b
  jobs            who, what, state, energy_kwh, wasted_mj
  attempts        node, accelerator, started, ended, energy
  phases          energy of each phase of each attempt
  energy_by_hour  every account of every hour, idle too
  energy          the energy log itself, entry by entry
  metrics         the metric logs: losses, scores, counts
  runs            submissions
  files           of the energy log, and why one is not read

Examples:\n
\b
  wattledger sql "DESCRIBE jobs"
  wattledger sql "SELECT model, sum(energy_kwh) AS kwh
    FROM jobs GROUP BY model ORDER BY kwh DESC"
  wattledger sql "SELECT account, sum(energy_mj) AS mj
    FROM energy_by_hour GROUP BY account"
  wattledger sql --csv "SELECT hour, sum(energy_kwh) AS kwh
    FROM energy_by_hour WHERE node = 'n1' GROUP BY hour"
  wattledger sql --json "SELECT job_id, value FROM metrics
    WHERE name = 'score/accuracy' AND phase = 'evaluate'"
"""


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT; DESCRIBE and SHOW TABLES too.", show_default=False)],
    as_json: options.JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows at most; 0: all there are.")] = MOST_ROWS,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds an answer may take; 0: as long as it takes.")] = MOST_S,
    home: options.HomeOption = None,
) -> None:
    """Answer one SELECT over the ledger."""
    # Imported here: loading duckdb takes a tenth of a second that no other verb should pay.
    from orchestrator.books.query import Limits, ask  # noqa: PLC0415

    if as_json and as_csv:
        raise InputError("--json and --csv are two answers to one question: name one of them.")
    answer = ask(options.home_of(home), question, Limits(rows=limit or None, seconds=timeout or None))
    if answer.is_cut:
        console(stderr=True).print(f"only the first {limit} rows; --limit 0 gives all of them", soft_wrap=True)
    if as_json:
        if len(set(answer.columns)) < len(answer.columns):
            raise InputError("two columns have the same name, and an object has a name once: name them apart with AS.")
        options.print_json([dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows])
    elif as_csv:
        print_text(_csv(answer))
    else:
        _show(answer)


sql.__doc__ = HELP


def _show(answer: Answer) -> None:
    numeric = [
        any(row[place] is not None for row in answer.rows)
        and all(row[place] is None or isinstance(row[place], int | float) for row in answer.rows)
        for place in range(len(answer.columns))
    ]
    columns = [Column(heading=name, numeric=right) for name, right in zip(answer.columns, numeric, strict=True)]
    cells = [[UNKNOWN if value is None else _text(value) for value in row] for row in answer.rows]
    count = len(answer.rows)
    print_table("", columns, cells, [f"{count} row{'' if count == 1 else 's'}"])


def _csv(answer: Answer) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(["" if value is None else _plain(value) for value in row] for row in answer.rows)
    return text.getvalue().rstrip("\n")


def _text(value: Any) -> str:  # noqa: ANN401 (whatever a query gives)
    plain = _plain(value)
    return f"{plain:.6g}" if isinstance(plain, float) and plain != round(plain) else str(plain)


def _plain(value: Any) -> Any:  # noqa: ANN401 (whatever a query gives)
    """As JSON has it: times as ISO 8601 in UTC, and what is no number as null."""
    match value:
        case datetime.datetime():
            return value.replace(tzinfo=None).isoformat() + "Z"
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case dict():
            return {str(key): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return str(value)
