"""What the ledger of decisions holds beside jobs: runs, budgets, controllers, and the spans that fair share counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One submission.

    Attributes:
        manifest: the manifest's text, as submitted.
        host: where it was submitted, ``pid`` by what process.
        user: who submitted it; ``None`` in runs from before it was noted.
        bound: it ends with the process that submitted it, which is its controller (``run --local``); so did every
            run of ledgers from before there was a queue.
    """

    run_id: str
    name: str
    manifest: str
    submitted_ns: int
    host: str
    pid: int
    user: str | None = None
    bound: bool = False


BudgetScope = Literal["user", "team", "project", "job"]
BudgetPeriod = Literal["day", "week", "month", "total"]


@dataclass(frozen=True, kw_only=True)
class BudgetRecord:
    """What somebody may use in a period.

    Attributes:
        name: of the user, team, project or job.
        period: ``day``, ``week`` (from Monday) or ``month``, by UTC; or ``total``.
        energy_kwh: IT energy, kWh; ``co2e_kg``: operational, PUE included. ``None`` is no limit.
    """

    scope: BudgetScope
    name: str
    period: BudgetPeriod
    energy_kwh: float | None
    co2e_kg: float | None
    set_ns: int


@dataclass(frozen=True, kw_only=True)
class ControllerRecord:
    """A controller and what it saw last, so that commands can tell without asking it, also when it is dead.

    Attributes:
        name: ``controller``, or ``controller-RUN_ID`` of one that serves a single run.
        host: where it runs, ``pid`` as what process.
        address: of the Ray cluster it drives; ``targets_url``: where Prometheus finds the agents to scrape.
        started_ns: when it started; ``beat_ns``: when it last said that it lives, both ns since the epoch.
        trouble: what keeps it from its work, for people; ``None`` when nothing does.
        cluster: its last ``ClusterView``, as that writes itself in JSON.
    """

    name: str
    host: str
    pid: int
    address: str
    targets_url: str
    started_ns: int
    beat_ns: int
    trouble: str | None
    cluster: str


class AttemptSpan(NamedTuple):
    """GPUs that a user's attempt held, over all of its nodes; ``ended_ns`` is ``None`` while it does."""

    user: str | None
    gpus: float
    started_ns: int
    ended_ns: int | None
