"""``wattledger logs``: what a job wrote, afterwards or while it writes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import console, print_piece
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view import LogPiece, find_job, find_log, read_log

EXIT_CODES = {JobState.SUCCEEDED: 0, JobState.CANCELLED: 130}
"""What following a job to its end exits with; 1 for other ends."""


def logs(
    job: options.JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows, until the job has ended.")] = False,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="One attempt alone.", show_default="the last that has a log")
    ] = None,
    rank: Annotated[int, typer.Option(min=0, help="The process of a gang, from 0.")] = 0,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many lines of what is there already.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List the files instead of showing one.")] = False,
    home: options.HomeOption = None,
) -> None:
    """Print a job's log. With --follow, live and across attempts, until the job ends.

    Exit codes with --follow: 0 the job succeeded, 1 it did not, 130 it was cancelled, or Ctrl-C (the job goes on).
    """
    ledger = options.home_of(home)
    if as_json:
        options.print_json([log.as_dict() for log in client.logs(ledger, job)])
        return
    with contextlib.closing(client.open_store(ledger)) as store:
        found = find_job(store, job)
        if not follow:
            for text in read_log(find_log(ledger, found, attempt=attempt, rank=rank).path, tail=tail):
                print_piece(text)
            return
        try:
            _show(client.follow_logs(ledger, found.job_id, attempt=attempt, rank=rank, tail=tail))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        raise typer.Exit(_exit_code(store.job(found.job_id)))


def _show(pieces: Iterable[LogPiece]) -> None:
    """The log on standard output; what is said about the job on standard error."""
    told = console(stderr=True)
    for piece in pieces:
        if piece.text:
            print_piece(piece.text)
        if piece.notice:
            sys.stdout.flush()
            told.print(f"• {piece.notice}", markup=False, emoji=False)


def _exit_code(job: JobRecord) -> int:
    return EXIT_CODES.get(job.state, 1) if job.state.is_final else 0
