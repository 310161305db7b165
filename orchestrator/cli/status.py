"""``wattledger status``: where the jobs of a run are."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.custody import settle_orphans
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.report.figures import UNKNOWN
from workers.home import Home
from workers.progress import Progress, read_progress


def status(
    run: options.RunArgument = None, as_json: options.JsonOption = False, home: options.HomeOption = None
) -> None:
    """Show each job of a run: its state and why, its node, and how far it is."""
    ledger = options.home_of(home)
    with contextlib.closing(client.open_store(ledger)) as store:
        settle_orphans(store, ledger)
        found = client.find_run(store, run)
        jobs = [(job, _progress(ledger, job)) for job in store.jobs(run_id=found.run_id)]
    if as_json:
        options.print_json([_as_dict(job, progress) for job, progress in jobs])
        return
    columns = [
        Column(heading="job"),
        Column(heading="model"),
        Column(heading="seed", numeric=True, spare=1),
        Column(heading="state"),
        Column(heading="attempt", numeric=True, spare=2),
        Column(heading="accelerator"),
        Column(heading="progress"),
        Column(heading="reason", folds=True),
    ]
    print_table(f"Run {found.run_id}", columns, [_line(job, progress) for job, progress in jobs])


def _line(job: JobRecord, progress: Progress | None) -> list[str]:
    last = job.attempts[-1] if job.attempts else None
    return [
        job.job_id,
        job.spec.model,
        str(job.spec.seed),
        job.state.value,
        str(len(job.attempts)),
        (last.accelerator if last else None) or UNKNOWN,
        f"{progress.phase} {progress.done}/{progress.total}, {100 * progress.fraction:.0f} %" if progress else UNKNOWN,
        job.reason or UNKNOWN,
    ]


def _as_dict(job: JobRecord, progress: Progress | None) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "run_id": job.run_id,
        "model": job.spec.model,
        "seed": job.spec.seed,
        "state": job.state.value,
        "reason": job.reason,
        "attempts": [asdict(attempt) for attempt in job.attempts],
        "progress": None if progress is None else {**asdict(progress), "fraction": progress.fraction},
    }


def _progress(home: Home, job: JobRecord) -> Progress | None:
    if job.state is not JobState.RUNNING:
        return None
    return read_progress(home, job.job_id, job.attempts[-1].number)
