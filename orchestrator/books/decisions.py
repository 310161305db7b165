"""Runs, jobs and attempts as ``state.db`` has them, beside the sums; only jobs that something happened to are read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from orchestrator.books.database import Books
from orchestrator.chain import chain_of, wasted_in
from orchestrator.lifecycle import JobRecord
from orchestrator.store import Store
from workers.home import Home
from workers.metric_log import read_metrics, resumed_from


def refresh_decisions(books: Books) -> int:
    """Take over what changed since the last time, and give how many jobs did; a ledger without decisions has none.

    Raises:
        InputError: ``state.db`` cannot be read.
    """
    if not books.home.state_db.exists():
        return _replace(books, (), after_event=0, every=True)
    with contextlib.closing(Store(books.home.state_db)) as store:
        ((seen,),) = books.rows("SELECT last_event FROM about")
        last_event = store.last_event()
        if last_event == seen:
            return 0
        every = last_event < seen  # another state.db in the place of the one we knew
        jobs = store.jobs_changed(after_event=0 if every else seen)
        with books.transaction():
            count = _replace(books, jobs, after_event=last_event, every=every)
            runs = store.runs()
            books.rows("DELETE FROM runs")
            _insert(
                books,
                "runs",
                [(run.run_id, run.name, run.host, run.submitted_ns) for run in runs],
            )
        return count


def _replace(books: Books, jobs: Sequence[JobRecord], *, after_event: int, every: bool) -> int:
    for table in ("jobs", "attempts"):
        where = "true" if every else "job_id IN (SELECT unnest(?))"
        books.rows(f"DELETE FROM {table} WHERE {where}", [] if every else [[job.job_id for job in jobs]])
    _insert(
        books,
        "jobs",
        [
            (
                job.job_id,
                job.run_id,
                job.sequence,
                job.state.value,
                job.reason,
                job.submitted_ns,
                job.user,
                job.spec.to_json(),
            )
            for job in jobs
        ],
    )
    _insert(
        books,
        "attempts",
        [
            (
                job.job_id,
                attempt.number,
                attempt.state.value,
                attempt.reason,
                ",".join(attempt.nodes),
                attempt.accelerator,
                attempt.started_ns,
                attempt.ended_ns,
                attempt.number in wasted,
            )
            for job, wasted in ((job, _wasted(books.home, job)) for job in jobs)
            for attempt in job.attempts
        ],
    )
    books.rows("UPDATE about SET last_event = ?", [after_event])
    return len(jobs)


def _wasted(home: Home, job: JobRecord) -> frozenset[int]:
    """Attempts that came to nothing. Metric logs are asked only where one attempt may have gone on from another."""

    def went_on_from(number: int) -> int | None:
        return resumed_from(read_metrics(home, job.job_id, number)) if len(job.attempts) > 1 else None

    return wasted_in(job.attempts, chain_of(job.attempts, went_on_from))


def _insert(books: Books, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows in one statement, a list for each column: a statement for each row takes minutes for 10,000 jobs."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        books.rows(f"INSERT INTO {table} SELECT {', '.join('unnest(?)' for _ in columns)}", columns)
