"""Roll-ups: what a user, a model, a node, a day cost. Every line says how many jobs it could not count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.rows import Account
from orchestrator.accounting.slices import Slice
from orchestrator.report.records import Record
from workers.errors import UnknownNameError
from workers.units import mj_to_kwh

SLICED = ("node", "day")
"""Keys that tell parts of one job apart."""
KEYS = (
    "name",
    "kind",
    "task",
    "model",
    "architecture",
    "accelerator",
    "gpu_count",
    "quantization",
    "adapter",
    "seed",
    "state",
    "user",
    "team",
    "project",
    "run_id",
    "date",
    *SLICED,
)
"""What jobs may be grouped by."""
JOB = "job"


@dataclass(frozen=True, kw_only=True)
class Group:
    """One line of a roll-up.

    Attributes:
        keys: what it is of, in the order asked; ``None`` is not known, or does not apply (idle has no model).
        account: ``job``, ``idle`` or ``unattributed``.
        jobs: jobs it is of; ``jobs_unknown``: those whose energy is not known, which the sums lack.
        co2e_kg: operational, PUE included; ``None`` where none of it is known (idle has no region).
        energy_wasted_kwh: what failed attempts took of it.
        method: the weakest of its entries; ``None`` where there are none.
    """

    keys: Mapping[str, object]
    account: str
    jobs: int
    jobs_unknown: int
    energy_kwh: float | None
    energy_wasted_kwh: float | None
    co2e_kg: float | None
    method: str | None
    quality: tuple[str, ...]

    def as_record(self) -> Record:
        """Flat, the keys first."""
        return {
            **self.keys,
            "account": self.account,
            "jobs": self.jobs,
            "jobs_unknown": self.jobs_unknown,
            "energy_kwh": self.energy_kwh,
            "energy_wasted_kwh": self.energy_wasted_kwh,
            "co2e_kg": self.co2e_kg,
            "energy_method": self.method,
            "energy_quality": list(self.quality),
        }


@dataclass
class _Sum:
    """A line while it is summed up: its jobs, those without energy, and its slices."""

    jobs: set[str]
    unknown: set[str]
    slices: list[Slice]


def group(
    accounts: Sequence[tuple[Account, Record]], by: Sequence[str], others: Mapping[str, Sequence[Slice]]
) -> tuple[Group, ...]:
    """Jobs by ``by``, the most energy first, and after them what was nobody's.

    Args:
        accounts: with their records.
        by: some of ``KEYS``.
        others: account (``idle``, ``unattributed``) to its slices.

    Raises:
        UnknownNameError: cannot be grouped by that.
    """
    for name in by:
        if name not in KEYS:
            raise UnknownNameError("key of a group", name, KEYS)
    jobs: dict[tuple[object, ...], _Sum] = {}
    for account, record in accounts:
        _add(jobs, account, record, by)
    nobody: dict[tuple[object, ...], _Sum] = {}
    for name, slices in others.items():
        for one in slices:
            key = (name, *(_part(one, part) for part in by))
            nobody.setdefault(key, _Sum(jobs=set(), unknown=set(), slices=[])).slices.append(one)
    lines = [_group(dict(zip(by, key, strict=True)), JOB, found) for key, found in jobs.items()]
    lines.sort(key=lambda line: -(line.energy_kwh or 0.0))
    rest = [_group(dict(zip(by, key[1:], strict=True)), str(key[0]), found) for key, found in nobody.items()]
    return (*lines, *sorted(rest, key=lambda line: (line.account, -(line.energy_kwh or 0.0))))


def _add(lines: dict[tuple[object, ...], _Sum], account: Account, record: Record, by: Sequence[str]) -> None:
    """Put a job's slices where they belong; one without energy is on the line it would be on, and told there."""
    is_unknown = account.row.energy_kwh is None
    for one in account.slices or (None,):
        key = tuple(_part(one, name) if name in SLICED else record[name] for name in by)
        line = lines.setdefault(key, _Sum(jobs=set(), unknown=set(), slices=[]))
        line.jobs.add(account.row.job_id)
        if is_unknown:
            line.unknown.add(account.row.job_id)
        elif one is not None:
            line.slices.append(one)


def _part(one: Slice | None, name: str) -> str | None:
    if one is None or name not in SLICED:
        return None
    return one.node if name == "node" else one.day


def _group(keys: Mapping[str, object], account: str, found: _Sum) -> Group:
    slices = found.slices
    grams = [one.co2e_g for one in slices if one.co2e_g is not None]
    weakest = max((one.method for one in slices), key=lambda method: method.weakness, default=None)
    wasted = sum(one.energy_mj for one in slices if one.wasted)
    return Group(
        keys=keys,
        account=account,
        jobs=len(found.jobs),
        jobs_unknown=len(found.unknown),
        energy_kwh=mj_to_kwh(sum(one.energy_mj for one in slices)) if slices else None,
        energy_wasted_kwh=mj_to_kwh(wasted) if slices else None,
        co2e_kg=sum(grams) / 1000 if grams and len(grams) == len(slices) else None,
        method=None if weakest is None else weakest.value,
        quality=tuple(sorted({flag.value for one in slices for flag in one.quality})),
    )
