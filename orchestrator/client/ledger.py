"""What a ledger holds, as values: its runs, and the books of their jobs. Needs no cluster and no controller."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from orchestrator.accounting.budgets import BudgetStatus, budget_statuses
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.accounting.server_access import OPEN, ServerAccess
from orchestrator.carbon.sources import HourlySources
from orchestrator.lifecycle import JobRecord
from orchestrator.store import RunRecord, Store
from workers.errors import InputError
from workers.home import Home
from workers.units import NS_PER_S

PROMETHEUS_VARIABLE = "WATTLEDGER_PROMETHEUS_URL"
SETTLE_NS = 2 * NS_PER_S
"""How long a report of a job that just ended waits, so that the scrape after its end is there too."""


def open_store(home: Home) -> Store:
    """The ledger for reading.

    Raises:
        InputError: there is none yet.
    """
    if not home.state_db.exists():
        raise InputError(
            f"there is no ledger in {home.root}. Start a run, or name another folder with --home or WATTLEDGER_HOME."
        )
    return Store(home.state_db)


def find_run(store: Store, name: str | None) -> RunRecord:
    """A run by id, by manifest name (its latest), or the latest of all.

    Raises:
        InputError: there is none; lists those there are.
    """
    runs = store.runs()
    if not runs:
        raise InputError("this ledger has no runs yet. Start one: wattledger run manifests/quickstart.yaml --local")
    for run in runs:
        if name is None or name in (run.run_id, run.name):
            return run
    known = ", ".join(run.run_id for run in runs[:10])
    raise InputError(f"no run is called {name!r}. The latest are: {known}.")


def accounts(
    home: Home, jobs: Sequence[JobRecord], *, prometheus_url: str | None, access: ServerAccess = OPEN
) -> tuple[Account, ...]:
    """Rows of ``jobs`` from the logs; Prometheus, if named, is asked as the witness."""
    with contextlib.ExitStack() as stack:
        prometheus = None
        if prometheus_url is not None:
            prometheus = PrometheusClient(prometheus_url, access=access)
            stack.callback(prometheus.close)
        sources = HourlySources(home)
        stack.callback(sources.close)
        return build_accounts(home, jobs, prometheus=prometheus, sources=sources)


def accounts_now(
    home: Home, jobs: Sequence[JobRecord], *, prometheus_url: str | None, access: ServerAccess = OPEN
) -> tuple[Account, ...]:
    """As ``accounts``, of jobs that have just ended: waits until Prometheus has looked once more."""
    if prometheus_url is not None:
        last_end_ns = max((attempt.ended_ns or 0 for job in jobs for attempt in job.attempts), default=0)
        _wait_until(last_end_ns + SETTLE_NS)
    return accounts(home, jobs, prometheus_url=prometheus_url, access=access)


def budgets(home: Home) -> tuple[BudgetStatus, ...]:
    """Every budget of the ledger as it stands now.

    Raises:
        InputError: there is no ledger yet.
    """
    with contextlib.closing(open_store(home)) as store:
        given, jobs = store.budgets(), store.jobs()
    with contextlib.closing(HourlySources(home)) as sources:
        return budget_statuses(home, jobs, given, now_ns=time.time_ns(), sources=sources)


def prometheus_url(given: str | None) -> str | None:
    """The server named on the command line, else by the environment."""
    return given or os.environ.get(PROMETHEUS_VARIABLE) or None


def _wait_until(time_ns: int) -> None:
    while (left_ns := time_ns - time.time_ns()) > 0:
        time.sleep(min(left_ns / NS_PER_S, 1.0))
