"""Which jobs a name means: a job's id or the beginning of one, a run's id, or a manifest's name."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from orchestrator.lifecycle import JobRecord
from orchestrator.store import Store
from workers.errors import InputError, UnknownNameError

_NAMED = 10
"""Matches written out in a message; the rest are counted."""


def find_jobs(store: Store, name: str) -> tuple[JobRecord, ...]:
    """The jobs that ``name`` means, in order of submission; never none.

    A job's id, else a run's id, else a manifest's name (of its latest run), else what exactly one of these ids begins
    with, those of jobs first.

    Raises:
        UnknownNameError: nothing is called so; says what is called nearly so.
        InputError: it is the beginning of several jobs' ids; lists them.
    """
    with contextlib.suppress(UnknownNameError):  # a whole id is what most give; only other names need all jobs read
        return (store.job(name),)
    if any(run.run_id == name for run in store.runs()):
        return store.jobs(run_id=name)
    jobs = store.jobs()
    named = _latest(store, [job for job in jobs if job.spec.name == name])
    if named:
        return tuple(named)
    begun = [job for job in jobs if job.job_id.startswith(name)] if name else []
    runs = {job.run_id for job in jobs if job.run_id.startswith(name)} if name and not begun else set()
    if len(runs) == 1:
        return store.jobs(run_id=runs.pop())
    if len(begun) > 1:
        raise InputError(f"{name!r} is the beginning of {len(begun)} job ids: {_listed(begun)}. Type more of one.")
    if not begun:
        known = {job.job_id for job in jobs} | {job.spec.name for job in jobs} | {job.run_id for job in jobs}
        latest = ", ".join(run.run_id for run in store.runs()[:_NAMED]) or "none"
        listing = f"the runs {latest}; unfinished jobs of all runs: wattledger status --all"
        raise UnknownNameError("job or run", name, known, listing=listing)
    return tuple(begun)


def find_job(store: Store, name: str) -> JobRecord:
    """The one job that ``name`` means.

    Raises:
        UnknownNameError: nothing is called so.
        InputError: it means several jobs; lists them.
    """
    jobs = find_jobs(store, name)
    if len(jobs) > 1:
        raise InputError(f"{name!r} means {len(jobs)} jobs: {_listed(jobs)}. Name one.")
    return jobs[0]


def _latest(store: Store, jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """Those of the latest run that has any."""
    runs = {job.run_id for job in jobs}
    latest = next((run.run_id for run in store.runs() if run.run_id in runs), None)
    return [job for job in jobs if job.run_id == latest]


def _listed(jobs: Sequence[JobRecord]) -> str:
    rest = len(jobs) - _NAMED
    return ", ".join([job.job_id for job in jobs[:_NAMED]] + ([f"and {rest} more"] if rest > 0 else []))
