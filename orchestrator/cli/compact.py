"""``wattledger compact``: many small files of the energy log become one a day."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.client.housekeeping import KEEP_DAYS, Forgotten, forget
from orchestrator.report.figures import UNKNOWN

if TYPE_CHECKING:
    from orchestrator.books.compaction import Compacted


def compact(
    older_than: Annotated[
        int, typer.Option("--older-than", min=1, metavar="DAYS", help="Only days that ended at least so many days ago.")
    ] = 1,
    keep_days: Annotated[
        int,
        typer.Option("--keep-days", min=0, metavar="DAYS", help="How long stories and left checkpoints are kept."),
    ] = KEEP_DAYS,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Merge the small files of closed days of the energy log, so that years of it stay quick to read.

    No energy is lost or counted twice, also when this is stopped in the middle; run again, it finishes. Entries of one
    account that follow each other become one within each minute.

    Of jobs that ended more than --keep-days ago, the checkpoints are removed that a job left which failed or was
    cancelled, and all of what explain tells but how it ended. What they cost, their logs and artifacts stay.
    """
    # Imported here: loading duckdb takes a tenth of a second that no other verb should pay.
    from orchestrator.books.compaction import closed_before, compact_ledger  # noqa: PLC0415

    before = closed_before(time.time_ns(), older_than_days=older_than)
    ledger, now_ns = options.home_of(home), time.time_ns()
    done = list(compact_ledger(ledger, before=before))
    forgotten = forget(ledger, keep_days=keep_days, now_ns=now_ns)
    if as_json:
        options.print_json({"days": [asdict(day) for day in done], "forgotten": asdict(forgotten)})
        return
    columns = [
        Column(heading="node"),
        Column(heading="day"),
        Column(heading="files", numeric=True),
        Column(heading="entries", numeric=True),
        Column(heading="left", numeric=True),
        Column(heading="kB", numeric=True),
        Column(heading="left", numeric=True),
        Column(heading="left as it is because", folds=True),
    ]
    print_table(
        f"Days before {before}", columns, [_line(day) for day in done], [*_notes(done), _told(forgotten, keep_days)]
    )


def _line(day: Compacted) -> list[str]:
    figures = [day.entries, day.entries_left, day.bytes // 1000, day.bytes_left // 1000]
    told = [UNKNOWN] * 4 if day.problem else [str(figure) for figure in figures]
    return [day.node, day.date, str(day.files), *told, day.problem or ""]


def _told(forgotten: Forgotten, keep_days: int) -> str:
    return (
        f"of jobs that ended more than {keep_days} days ago: checkpoints of {forgotten.jobs} removed "
        f"({forgotten.bytes / 1e6:.1f} MB), and {forgotten.events} events"
    )


def _notes(done: list[Compacted]) -> list[str]:
    merged = [day for day in done if day.problem is None]
    if not merged:
        return ["nothing to compact"]
    before, after = sum(day.bytes for day in merged), sum(day.bytes_left for day in merged)
    return [
        f"{sum(day.files for day in merged)} files became {len(merged)}: {before / 1e6:.1f} MB, now {after / 1e6:.1f}"
    ]
