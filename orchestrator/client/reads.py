"""What the queue shows of itself, as values; each looks once and needs no cluster and no controller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from orchestrator.client.ledger import find_run, open_store
from orchestrator.custody import settle_orphans
from orchestrator.lifecycle import JobRecord
from orchestrator.queue_view import (
    Explanation,
    LogFile,
    LogFollower,
    LogPiece,
    QueueView,
    QuotaUse,
    find_job,
    find_jobs,
    log_files,
    look,
    quota_uses,
)
from orchestrator.queue_view import explain as explanation_of
from orchestrator.store import Store
from workers.home import Home


def status(home: Home, name: str | None = None, *, everything: bool = False) -> QueueView:
    """How jobs stand: those that ``name`` means, of the latest run without one, or all that have not ended.

    Raises:
        InputError: there is no ledger or no run; ``name`` means nothing, or is the beginning of several jobs' ids.
    """
    with _reading(home) as store:
        jobs = store.jobs(unfinished=True) if everything else find_jobs(store, name or find_run(store, None).run_id)
        return look(home, store, jobs, now_ns=time.time_ns())


def explain(home: Home, name: str) -> Explanation:
    """One job's story: why it waits or is where it is, what happened to it, and what would help.

    Raises:
        InputError: there is no ledger, or ``name`` means no job or several.
    """
    with _reading(home) as store:
        return explanation_of(home, store, find_job(store, name).job_id, now_ns=time.time_ns())


def logs(home: Home, name: str) -> tuple[LogFile, ...]:
    """The log files of one job, by attempt and rank.

    Raises:
        InputError: there is no ledger, or ``name`` means no job or several.
    """
    with _reading(home) as store:
        return log_files(home, find_job(store, name))


def follow_logs(
    home: Home,
    name: str,
    *,
    attempt: int | None = None,
    rank: int = 0,
    tail: int | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[LogPiece]:
    """A job's log as it grows, across attempts, until the job (or the named attempt) has ended.

    Raises:
        InputError: there is no ledger, or ``name`` means no job or several.
    """
    with _reading(home) as store:
        job_id = find_job(store, name).job_id
        follower = LogFollower(
            home,
            lambda: store.job(job_id),
            sleep=sleep,
            why=lambda job: _why(home, store, job),
            attempt=attempt,
            rank=rank,
            tail=tail,
        )
        yield from follower.pieces()


def quotas(home: Home) -> tuple[QuotaUse, ...]:
    """Every quota, with what those under it hold now.

    Raises:
        InputError: there is no ledger yet.
    """
    with _reading(home) as store:
        return quota_uses(store.quotas(), store.jobs(unfinished=True))


def _why(home: Home, store: Store, job: JobRecord) -> str | None:
    """What a job waits for, and whether anybody sees to it."""
    view = look(home, store, [job], now_ns=time.time_ns())
    controller = view.controller_of(job)
    is_dead = controller is not None and not controller.is_alive
    told = [view.jobs[0].why, *(view.controller_lines() if is_dead else [])]
    return "; ".join(one for one in told if one) or None


@contextlib.contextmanager
def _reading(home: Home) -> Iterator[Store]:
    """The ledger, without the jobs of commands that are gone being taken for alive."""
    with contextlib.closing(open_store(home)) as store:
        settle_orphans(store, home)
        yield store
