"""What did a user, a model, a node, a day cost? Sums over the whole ledger, in which nothing is left out.

Every roll-up has the energy of jobs, of idle devices and of entries whose job the store does not know, each on lines of
its own, so that its lines add up to all the ledger has, to the millijoule. It counts what was metered: power that a
manifest only assumes (``accounting.cpu_watts``, ``dram_watts``) is in a job's own report, not here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.books.views import ACCOUNTS, WEAKNESS
from workers.contract import Method, Quality
from workers.errors import UnknownNameError
from workers.units import NS_PER_US, mj_to_kwh

if TYPE_CHECKING:
    from orchestrator.books.database import Books

DIMENSIONS: Mapping[str, str] = {
    "user": '"user"',
    "team": "team",
    "project": "project",
    "run": "run_id",
    "name": "name",
    "job": "job_id",
    "attempt": "attempt",
    "state": "state",
    "task": "task",
    "kind": "kind",
    "model": "model",
    "adapter": "adapter",
    "quantization": "quantization",
    "region": "region",
    "phase": "phase",
    "accelerator": "accelerator",
    "node": "node",
    "device": "device",
    "device_kind": "device_kind",
    "day": "day",
    "hour": "strftime(hour, '%Y-%m-%dT%H:00Z')",
}
"""What a roll-up can be by, and the column of ``bookings`` that says it."""


@dataclass(frozen=True, kw_only=True)
class RollupRow:
    """One line of a roll-up.

    Attributes:
        keys: dimension to value, in the order asked; ``None`` where an entry has none (idle has no model).
        account: ``job``, ``idle`` or ``unattributed`` (entries that name a job the store does not know).
        jobs: how many jobs it is of, and ``attempts`` of theirs.
        energy_mj: all of it; ``by_kind_mj``: the same by kind of device (``gpu``, ``cpu``, ``dram``).
        wasted_mj: what failed attempts took of it.
        witness_mj: integrated power over the entries that have a witness; ``witnessed_mj``: what the counter says of
            those same entries. Both ``None`` where none has.
        start_ns: the first entry's start, and ``end_ns`` the last one's end.
        method: the weakest of its entries.
        quality: every flag of its entries; ``gap`` where a file that may belong here cannot be read.
    """

    keys: Mapping[str, str | None]
    account: str
    jobs: int
    attempts: int
    energy_mj: int
    by_kind_mj: Mapping[str, int]
    wasted_mj: int
    witness_mj: int | None
    witnessed_mj: int | None
    start_ns: int
    end_ns: int
    method: Method
    quality: frozenset[Quality]

    @property
    def energy_kwh(self) -> float:
        """IT energy, before PUE."""
        return mj_to_kwh(self.energy_mj)

    @property
    def disagreement_percent(self) -> float | None:
        """100 x (witness - counter) / counter, of what has a witness, signed; ``None`` where nothing has."""
        if self.witness_mj is None or not self.witnessed_mj:
            return None
        return 100 * (self.witness_mj - self.witnessed_mj) / self.witnessed_mj

    def as_dict(self) -> dict[str, object]:
        """JSON-ready, the keys first."""
        return {
            **self.keys,
            "account": self.account,
            "jobs": self.jobs,
            "attempts": self.attempts,
            "energy_kwh": self.energy_kwh,
            "energy_mj": self.energy_mj,
            "energy_by_kind_kwh": {kind: mj_to_kwh(part) for kind, part in self.by_kind_mj.items()},
            "energy_wasted_kwh": mj_to_kwh(self.wasted_mj),
            "energy_method": self.method.value,
            "energy_quality": sorted(flag.value for flag in self.quality),
            "witness_disagreement_percent": self.disagreement_percent,
        }


def rollup(
    books: Books, by: Sequence[str] = (), *, where: Mapping[str, Collection[str]] | None = None
) -> tuple[RollupRow, ...]:
    """Sums by ``by``: jobs before idle and unattributed, and then the most energy first.

    Args:
        books: up to date (``refresh``).
        by: dimensions; none gives one line for each account.
        where: dimension to the values to keep; lines of other values, or of none, are left out of the sums.

    Raises:
        UnknownNameError: a dimension that is not one; lists those there are.
    """
    chosen = tuple(dict.fromkeys(by))
    names = [f'"by_{name}"' for name in chosen]
    found = sums(
        books,
        chosen,
        _FIGURES,
        where=where,
        order=f"list_position({list(ACCOUNTS)}, account), energy_mj DESC, {', '.join([*names, 'account'])}",
    )
    return tuple(_row(chosen, row) for row in found)


def sums(
    books: Books,
    by: Sequence[str],
    figures: str,
    *,
    where: Mapping[str, Collection[str]] | None = None,
    apart: Mapping[str, str] | None = None,
    order: str = "ALL",
) -> list[tuple[Any, ...]]:
    """Rows of the dimensions ``by``, then of the columns ``apart`` (name to SQL), then of ``figures``, SQL over those.

    Raises:
        UnknownNameError: a dimension that is not one; lists those there are.
    """
    kept, parameters = _filter(where or {})
    keys = {f"by_{name}": f"{_column(name)}::VARCHAR" for name in by} | dict(apart or {})
    columns = [*(f'{column} AS "{name}"' for name, column in keys.items()), figures]
    grouped = [*(f'"{name}"' for name in keys), "account"]
    return books.rows(
        f"SELECT {', '.join(columns)} FROM bookings WHERE {kept} GROUP BY {', '.join(grouped)} ORDER BY {order}",
        parameters,
    )


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What no roll-up of a ledger can have.

    Attributes:
        files: files of the energy log that cannot be read.
        attempts: attempts that ended and have no entry, or none of the GPU they held.
        assumed: jobs whose manifest gives watts for a CPU or DRAM that nobody metered: their reports have it, and
            roll-ups do not.
    """

    files: int
    attempts: int
    assumed: int


def missing(books: Books) -> Missing:
    """What is not in the sums, of the whole ledger."""
    ((files, attempts, assumed),) = books.rows(_MISSING)
    return Missing(files=files, attempts=attempts, assumed=assumed)


@dataclass(frozen=True, kw_only=True)
class JobHour:
    """A job's energy of one UTC hour, exact: what meets the carbon intensity of that hour.

    Attributes:
        hour_ns: the hour's start, ns since the epoch.
    """

    job_id: str
    attempt: int | None
    phase: str | None
    hour_ns: int
    energy_mj: int


def job_hours(books: Books, job_ids: Collection[str] | None = None) -> tuple[JobHour, ...]:
    """The energy of jobs by attempt, phase and hour, in that order; of all jobs the store knows without ``job_ids``."""
    found = books.rows(
        "SELECT job_id, attempt, phase, epoch_ns(hour), sum(energy_mj) FROM bookings "
        "WHERE account = 'job' AND (?::VARCHAR[] IS NULL OR job_id IN (SELECT unnest(?::VARCHAR[]))) "
        "GROUP BY ALL ORDER BY ALL",
        [None if job_ids is None else sorted(job_ids)] * 2,
    )
    return tuple(
        JobHour(job_id=job_id, attempt=attempt, phase=phase, hour_ns=hour_ns, energy_mj=int(energy_mj))
        for job_id, attempt, phase, hour_ns, energy_mj in found
    )


_MISSING = """
SELECT
    (SELECT count(*) FROM files WHERE problem IS NOT NULL),
    (
        SELECT count(*) FROM attempts
        ANTI JOIN (
            SELECT DISTINCT h.job_id, h.attempt FROM hours h JOIN attempts a ON a.job_id = h.job_id
                AND a.attempt = h.attempt AND (h.kind = 'gpu' OR a.accelerator IS NULL)
        ) USING (job_id, attempt)
        WHERE state <> 'running'
    ),
    (
        SELECT count(*) FROM jobs
            LEFT JOIN (SELECT job_id, list(DISTINCT kind) AS kinds FROM hours GROUP BY job_id) USING (job_id)
        WHERE (spec->>'$.accounting.cpu_watts') IS NOT NULL AND NOT coalesce(list_contains(kinds, 'cpu'), false)
            OR (spec->>'$.accounting.dram_watts') IS NOT NULL AND NOT coalesce(list_contains(kinds, 'dram'), false)
    )
"""
_KINDS = ("gpu", "cpu", "dram")
_FIGURES = f"""
    account, count(DISTINCT job_id), count(DISTINCT (job_id, attempt)) FILTER (WHERE job_id IS NOT NULL),
    sum(energy_mj) AS energy_mj,
    {", ".join(f"coalesce(sum(energy_mj) FILTER (WHERE device_kind = '{kind}'), 0)" for kind in _KINDS)},
    coalesce(sum(energy_mj) FILTER (WHERE attempt_wasted), 0), sum(witness_mj), sum(witnessed_mj),
    min(start_us), max(end_us), {WEAKNESS}[max(list_position({WEAKNESS}, method))],
    list(DISTINCT quality) FILTER (WHERE quality <> ''), bool_or(damaged)
"""


def _column(name: str) -> str:
    if name not in DIMENSIONS:
        raise UnknownNameError("dimension of a roll-up", name, DIMENSIONS)
    return DIMENSIONS[name]


def _filter(where: Mapping[str, Collection[str]]) -> tuple[str, list[list[str]]]:
    terms = [f"{_column(name)}::VARCHAR IN (SELECT unnest(?))" for name in where]
    return " AND ".join(terms) or "true", [sorted(values) for values in where.values()]


def _row(by: Sequence[str], row: Sequence[Any]) -> RollupRow:
    keys, (account, jobs, attempts, energy_mj, *rest) = row[: len(by)], row[len(by) :]
    kinds, (wasted_mj, witness_mj, witnessed_mj, start_us, end_us, method, flags, damaged) = rest[:3], rest[3:]
    told = {Quality(flag) for some in flags or () for flag in some.split(",")}
    return RollupRow(
        keys=dict(zip(by, keys, strict=True)),
        account=account,
        jobs=jobs,
        attempts=attempts,
        energy_mj=energy_mj,
        by_kind_mj={kind: part for kind, part in zip(_KINDS, kinds, strict=True) if part},
        wasted_mj=wasted_mj,
        witness_mj=witness_mj,
        witnessed_mj=witnessed_mj,
        start_ns=start_us * NS_PER_US,
        end_ns=end_us * NS_PER_US,
        method=Method(method),
        quality=frozenset(told | ({Quality.GAP} if damaged else set())),
    )
