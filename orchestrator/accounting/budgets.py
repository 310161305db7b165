"""Budgets: what was spent of them, and what is left. Nothing is stopped for one yet.

A budget of a user, team, project or job counts what its jobs drew in the period, by the times of the energy entries
(UTC), failed attempts included. A job's own budget, from its manifest, counts the whole job.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import sum_of
from orchestrator.accounting.evidence import Evidence, gather
from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.unknown import Unknown
from orchestrator.carbon.sources import HourlySources
from orchestrator.lifecycle import JobRecord
from orchestrator.store import BudgetPeriod, BudgetRecord
from workers.contract import Budget, EnergyEntry
from workers.home import Home
from workers.units import NS_PER_S

NOT_PREDICTED = "predictions are not computed by this version"
UNITS = ("energy_kwh", "co2e_kg")


@dataclass(frozen=True, kw_only=True)
class BudgetStatus:
    """A budget and how it stands.

    Attributes:
        start_ns: the period's start, ns since the epoch; ``None`` for ``total``. ``end_ns``: its end.
        jobs: how many jobs drew something in the period; ``unknown``: those whose energy or carbon is not known.
        spent: ``energy_kwh`` and ``co2e_kg`` of the others.
        method: the weakest of their entries; ``None`` where there are none.
    """

    budget: BudgetRecord
    start_ns: int | None
    end_ns: int | None
    jobs: int
    unknown: tuple[str, ...]
    spent: Mapping[str, float]
    method: str | None

    @property
    def left(self) -> Mapping[str, float]:
        """What may still be used, by unit that has a limit; negative where the budget is exceeded."""
        limits = {unit: getattr(self.budget, unit) for unit in UNITS}
        return {unit: limit - self.spent[unit] for unit, limit in limits.items() if limit is not None}

    @property
    def is_exceeded(self) -> bool:
        """Whether more was spent than there was."""
        return any(left < 0 for left in self.left.values())

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        budget = self.budget
        return {
            "scope": budget.scope,
            "name": budget.name,
            "period": budget.period,
            "start": None if self.start_ns is None else _iso(self.start_ns),
            "end": None if self.end_ns is None else _iso(self.end_ns),
            **{
                unit: {
                    "budget": getattr(budget, unit),
                    "spent": self.spent[unit],
                    "predicted": None,
                    "left": self.left.get(unit),
                }
                for unit in UNITS
            },
            "energy_method": self.method,
            "jobs": self.jobs,
            "jobs_unknown": list(self.unknown),
            "is_exceeded": self.is_exceeded,
            "reasons": {"predicted": NOT_PREDICTED},
        }


def period_of(period: BudgetPeriod, now_ns: int) -> tuple[int | None, int | None]:
    """Start and end of the period ``now_ns`` is in, ns since the epoch, by UTC; weeks begin on Monday."""
    if period == "total":
        return None, None
    today = datetime.datetime.fromtimestamp(now_ns // NS_PER_S, tz=datetime.UTC)
    today = today.replace(hour=0, minute=0, second=0)
    if period == "day":
        start, end = today, today + datetime.timedelta(days=1)
    elif period == "week":
        start = today - datetime.timedelta(days=today.weekday())
        end = start + datetime.timedelta(days=7)
    else:
        start = today.replace(day=1)
        end = (start + datetime.timedelta(days=32)).replace(day=1)
    return int(start.timestamp()) * NS_PER_S, int(end.timestamp()) * NS_PER_S


def budget_statuses(
    home: Home,
    jobs: Sequence[JobRecord],
    budgets: Sequence[BudgetRecord],
    *,
    now_ns: int,
    sources: HourlySources | None = None,
) -> tuple[BudgetStatus, ...]:
    """How each budget stands now, in the order given; each job's logs are read once."""
    spans = {budget: period_of(budget.period, now_ns) for budget in budgets}
    wanted = [job for job in jobs if any(_is_of(job, budget) and _ran_in(job, span) for budget, span in spans.items())]
    evidence = gather(home, wanted)
    bases = {one.job.job_id: CarbonBasis.of(one, sources) for one in evidence}
    return tuple(
        _status(budget, spans[budget], [one for one in evidence if _is_of(one.job, budget)], bases)
        for budget in budgets
    )


def _is_of(job: JobRecord, budget: BudgetRecord) -> bool:
    accounting = job.spec.accounting
    owners = {"user": job.user, "team": accounting.team, "project": accounting.project, "job": job.job_id}
    return owners[budget.scope] == budget.name


def _ran_in(job: JobRecord, span: tuple[int | None, int | None]) -> bool:
    start_ns, end_ns = span
    return any(
        (end_ns is None or attempt.started_ns < end_ns)
        and (start_ns is None or attempt.ended_ns is None or attempt.ended_ns >= start_ns)
        for attempt in job.attempts
    )


def _status(
    budget: BudgetRecord,
    span: tuple[int | None, int | None],
    evidence: Sequence[Evidence],
    bases: Mapping[str, CarbonBasis | Unknown],
) -> BudgetStatus:
    spent, unknown, methods, jobs = dict.fromkeys(UNITS, 0.0), [], [], 0
    for one in evidence:
        if not _ran_in(one.job, span):
            continue
        jobs += 1
        inside = [entry for entry in one.entries if _is_in(entry, span)]
        drawn = sum_of(inside)
        basis, total = bases[one.job.job_id], one.total()
        no_carbon = isinstance(basis, Unknown) and budget.co2e_kg is not None
        if isinstance(total, Unknown) or one.unmetered or no_carbon:
            unknown.append(one.job.job_id)
        if drawn is None:
            continue
        methods.append(drawn.method)
        spent["energy_kwh"] += drawn.energy_kwh
        spent["co2e_kg"] += 0.0 if isinstance(basis, Unknown) else basis.kg(drawn.energy_kwh, inside)
    weakest = max(methods, key=lambda method: method.weakness, default=None)
    return BudgetStatus(
        budget=budget,
        start_ns=span[0],
        end_ns=span[1],
        jobs=jobs,
        unknown=tuple(unknown),
        spent=spent,
        method=None if weakest is None else weakest.value,
    )


def _is_in(entry: EnergyEntry, span: tuple[int | None, int | None]) -> bool:
    start_ns, end_ns = span
    return (start_ns is None or entry.start_ns >= start_ns) and (end_ns is None or entry.start_ns < end_ns)


def _iso(time_ns: int) -> str:
    return datetime.datetime.fromtimestamp(time_ns // NS_PER_S, tz=datetime.UTC).isoformat()


def job_budget(budget: Budget, row: ReportRow) -> Mapping[str, object] | Unknown:
    """A job's own budget, by unit: what was given, spent and left."""
    given = {unit: getattr(budget, unit) for unit in UNITS if getattr(budget, unit) is not None}
    if not given:
        return Unknown("its manifest gives none (budget)")
    return {
        unit: {
            "budget": limit,
            "spent": Unknown(row.reasons[unit]) if getattr(row, unit) is None else getattr(row, unit),
            "predicted": Unknown(NOT_PREDICTED),
            "left": Unknown(row.reasons[unit]) if getattr(row, unit) is None else limit - getattr(row, unit),
        }
        for unit, limit in given.items()
    }


def exceeded(job_id: str, budget: Budget, row: ReportRow) -> tuple[str, ...]:
    """A sentence for each unit of which the job used more than its manifest allows."""
    told = []
    for unit, symbol in zip(UNITS, ("kWh", "kg CO2e"), strict=True):
        limit, used = getattr(budget, unit), getattr(row, unit)
        if limit is not None and used is not None and used > limit:
            told.append(f"{job_id} used {used:.3g} {symbol} of its budget of {limit:.3g} {symbol}")
    return tuple(told)
