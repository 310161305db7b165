"""``wattledger status``: where the jobs are, when they end, and what the others wait for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, LiveTable, print_table
from orchestrator.custody import settle_orphans
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.queue_view import JobView, QueueView, find_jobs, in_line, look
from orchestrator.report.figures import UNKNOWN, format_duration
from orchestrator.store import Store
from workers.home import Home

WATCH_S = 1.0
COLUMNS = (
    Column(heading="#", numeric=True, spare=2),
    Column(heading="job"),
    Column(heading="model", spare=3),
    Column(heading="seed", numeric=True, spare=5),
    Column(heading="state"),
    Column(heading="attempt", numeric=True, spare=4),
    Column(heading="done", numeric=True),
    Column(heading="phase", spare=1),
    Column(heading="ends in", numeric=True),
    Column(heading="where, or why not", folds=True, least=30),
)


def status(
    name: options.NameArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole queue: unfinished jobs of all runs, first in line first.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="On a terminal, draw it anew each second until all have ended.")
    ] = False,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Show each job of a run: its state, its place, how far it is, when it ends, and why it waits.

    It reads the ledger alone, also when no controller runs.
    """
    ledger = options.home_of(home)
    with contextlib.closing(client.open_store(ledger)) as store:
        settle_orphans(store, ledger)
        title, choose = _chosen(store, name, everything=everything)
        screen = LiveTable()
        if as_json:
            options.print_json(look(ledger, store, choose(), now_ns=time.time_ns()).as_dict())
        elif watch and screen.is_live:
            with screen, contextlib.suppress(KeyboardInterrupt):
                follow(ledger, store, choose, lambda view: screen.show(title, *table(view)), sleep=time.sleep)
        else:
            print_table(title, *table(look(ledger, store, choose(), now_ns=time.time_ns())))


def follow(
    home: Home,
    store: Store,
    choose: Callable[[], Sequence[JobRecord]],
    show: Callable[[QueueView], object],
    *,
    sleep: Callable[[float], object],
) -> None:
    """Show the jobs again and again until all have ended."""
    while True:
        view = look(home, store, choose(), now_ns=time.time_ns())
        show(view)
        if all(job.record.state.is_final for job in view.jobs):
            return
        sleep(WATCH_S)


def _chosen(store: Store, name: str | None, *, everything: bool) -> tuple[str, Callable[[], Sequence[JobRecord]]]:
    """What the table is called, and how its jobs are read."""
    if everything:
        return "The queue", lambda: store.jobs(unfinished=True)
    jobs = () if name is None else find_jobs(store, name)
    run_id = jobs[0].run_id if jobs else client.find_run(store, None).run_id
    ids = {job.job_id for job in jobs}
    return f"Run {run_id}", lambda: [job for job in store.jobs(run_id=run_id) if not ids or job.job_id in ids]


def table(view: QueueView) -> tuple[Sequence[Column], list[list[str]], list[str]]:
    """Columns, rows and notes; jobs that run come first, then those in line, then others."""
    return COLUMNS, [_line(job) for job in in_line(view.jobs)], [*view.controller_lines(), *_marks(view.jobs)]


def _line(job: JobView) -> list[str]:
    record = job.record
    return [
        UNKNOWN if job.place is None else str(job.place),
        job.job_id,
        record.spec.model,
        str(record.spec.seed),
        record.state.value,
        str(len(record.attempts)),
        UNKNOWN if job.progress is None else f"{100 * job.progress.fraction:.0f} %",
        how_far(job),
        format_duration(job.eta_s),
        _where_or_why_not(job),
    ]


def _where_or_why_not(job: JobView) -> str:
    """What a job that waits waits for, where one is that runs, and of others why they ended and where they were."""
    record = job.record
    if record.state is JobState.QUEUED:
        return job.waits or UNKNOWN
    told = [record.reason, where(job) if record.attempts else None]
    return "; ".join(one for one in told if one) or UNKNOWN


def where(job: JobView) -> str:
    """Accelerator and nodes of the last attempt."""
    if not job.record.attempts:
        return UNKNOWN
    accelerator = job.record.attempts[-1].accelerator
    kind = f"{accelerator or 'CPU'}{' (simulated)' if job.simulated else ''}"
    return f"{kind} on {', '.join(job.nodes)}"


def how_far(job: JobView) -> str:
    """The phase and its units done."""
    progress = job.progress
    if progress is None:
        return "starting" if job.record.state is JobState.RUNNING else UNKNOWN
    return f"{progress.phase} {progress.done}/{progress.total}" if progress.total else progress.phase.value


def _marks(jobs: Sequence[JobView]) -> list[str]:
    return [] if jobs else ["no job waits or runs"]
