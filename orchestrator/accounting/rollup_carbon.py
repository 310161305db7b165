"""What does the energy of a roll-up stand for in grams? Each job's energy × its own PUE × its own intensity, summed.

The database adds up energy by line and by what makes grams of it; only those sums are multiplied here. A line has a
figure where all of its energy has one, and the reason why not otherwise: what no job drew has no manifest that names
its region.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.rollup import RollupRow, sums
from orchestrator.accounting.unknown import Unknown
from orchestrator.carbon.sources import HourlySources
from workers.contract import Accounting

if TYPE_CHECKING:
    from orchestrator.books.database import Books

NO_REGION = "no manifest names the region of what no job drew; name it with --region"

Key = tuple[str, tuple[str | None, ...]]
"""A line: its account, and the values of its dimensions."""


@dataclass(frozen=True, kw_only=True)
class LineCarbon:
    """The carbon of a roll-up's line.

    Attributes:
        co2e_kg: operational, each job's PUE included.
        sources: of the intensities and PUEs it is computed from.
    """

    co2e_kg: float
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Factors:
    """What makes grams of some energy: what manifests say of it, of jobs of one run where that matters."""

    accounting: Accounting
    run_id: str


def key_of(row: RollupRow) -> Key:
    """The line a roll-up's row is on."""
    return row.account, tuple(row.keys.values())


def rollup_carbon(
    books: Books,
    by: Sequence[str] = (),
    *,
    where: Mapping[str, Collection[str]] | None = None,
    nobodys: Accounting | None = None,
    sources: HourlySources | None = None,
) -> dict[Key, LineCarbon | Unknown]:
    """The carbon of every line that ``rollup`` gives for the same ``by`` and ``where``.

    Args:
        books: up to date (``refresh``).
        by: dimensions.
        where: dimension to the values to keep.
        nobodys: region and PUE of what no job drew; ``None`` where they are not known.
        sources: of hourly intensities; without them every hour has its region's year.

    Raises:
        UnknownNameError: a dimension that is not one; lists those there are.
    """
    chosen = tuple(dict.fromkeys(by))
    lines: dict[Key, dict[_Factors | None, dict[int, int]]] = {}
    for row in sums(books, chosen, "account, sum(energy_mj)", where=where, apart=_APART):
        keys, (*manifest, run_id, hour, account, energy_mj) = row[: len(chosen)], row[len(chosen) :]
        wanted = _accounting(manifest) if account == "job" else nobodys
        factors = None if wanted is None else _Factors(accounting=wanted, run_id=run_id or "")
        by_hour = lines.setdefault((account, tuple(keys)), {}).setdefault(factors, {})
        by_hour[hour] = by_hour.get(hour, 0) + int(energy_mj)
    bases = _bases(lines.values(), sources)
    return {key: _line(parts, bases) for key, parts in lines.items()}


_IS_HOURLY = "account = 'job' AND intensity <> 'yearly'"
_MANIFEST = ("region", "pue", "intensity", "zone", "signal")
_APART = {
    **{f"of_{name}": name for name in _MANIFEST},
    # A series is a file of its run, and has a figure for each hour; a yearly figure needs neither told apart.
    "of_run": f"CASE WHEN {_IS_HOURLY} THEN run_id END",
    "of_hour": f"CASE WHEN {_IS_HOURLY} THEN epoch_us(hour) // 3600000000 ELSE 0 END",
}


def _accounting(values: Sequence[Any]) -> Accounting:
    """What manifests say, as the database has it: text; what is null there is the default."""
    given = {name: value for name, value in zip(_MANIFEST, values, strict=True) if value is not None}
    return Accounting.model_validate(given | ({"pue": float(given["pue"])} if "pue" in given else {}))


def _bases(
    lines: Collection[Mapping[_Factors | None, Mapping[int, int]]], sources: HourlySources | None
) -> dict[_Factors | None, CarbonBasis | Unknown]:
    """Each set of factors once, for all the hours any line needs of it."""
    hours: dict[_Factors, set[int]] = {}
    for parts in lines:
        for factors, by_hour in parts.items():
            if factors is not None:
                hours.setdefault(factors, set()).update(by_hour)
    found: dict[_Factors | None, CarbonBasis | Unknown] = {None: Unknown(NO_REGION)}
    for factors, needed in hours.items():
        found[factors] = CarbonBasis.as_wanted(factors.accounting, needed, run_id=factors.run_id, sources=sources)
    return found


def _line(
    parts: Mapping[_Factors | None, Mapping[int, int]], bases: Mapping[_Factors | None, CarbonBasis | Unknown]
) -> LineCarbon | Unknown:
    total_kg, told = 0.0, dict[str, None]()
    for factors, by_hour in parts.items():
        basis = bases[factors]
        if isinstance(basis, Unknown):
            return basis
        kg, source = basis.of_hours(by_hour)
        total_kg += kg
        told[source] = None
    return LineCarbon(co2e_kg=total_kg, sources=tuple(told))
