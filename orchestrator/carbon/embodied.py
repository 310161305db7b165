"""Carbon of making the hardware, and the part of it a job answers for: M = TE × (TiR/EL) × (RR/ToR), as SCI has it.

TE: total embodied carbon of a board; TiR: time reserved; EL: expected lifespan; RR/ToR: the part of the board that was
reserved. Published figures of one board differ tenfold by what they count, so each keeps its scope. Pure but for the
table, which is ``embodied.csv``.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOURS_PER_YEAR = 365 * 24
"""As SCI's example counts: 1,000 kg over four years are 28.5 g for each hour."""


@dataclass(frozen=True, kw_only=True)
class Embodied:
    """What making one board emitted, spread over its life.

    Attributes:
        model: accelerator type.
        scope: what the figure counts: the card, the card and its share of the server, ...
        g_per_hour: gCO2e for each hour of the board's life.
        basis: the same in words: kilograms and years, or that the source gives grams per hour.
        source: who published it, and the year.
    """

    model: str
    scope: str
    g_per_hour: float
    basis: str
    source: str

    @property
    def provenance(self) -> str:
        """All that is to be known of the figure, as a clause."""
        return f"{self.model} ({self.scope}), {self.basis}: {self.source}"


def embodied_of(model: str) -> Embodied | None:
    """The embodied carbon of an accelerator type; ``None`` where no published figure of it is kept."""
    return _table().get(model)


def embodied_models() -> tuple[str, ...]:
    """The accelerator types a figure is kept of."""
    return tuple(sorted(_table()))


def embodied_g(total_kg: float, *, reserved_h: float, lifetime_years: float, share: float = 1.0) -> float:
    """Grams of embodied carbon of ``share`` (0 to 1) of a board of ``total_kg``, reserved for ``reserved_h``."""
    return total_kg * 1000 * reserved_h / (lifetime_years * HOURS_PER_YEAR) * share


@functools.cache
def _table() -> Mapping[str, Embodied]:
    with Path(__file__).with_name("embodied.csv").open(newline="", encoding="utf-8") as file:
        return {row["model"]: _read(row) for row in csv.DictReader(file)}


def _read(row: Mapping[str, str]) -> Embodied:
    if row["kg"]:
        kg, years = float(row["kg"]), float(row["lifetime_years"])
        g_per_hour, basis = embodied_g(kg, reserved_h=1, lifetime_years=years), f"{kg:g} kg over {years:g} years"
    else:
        g_per_hour = float(row["g_per_hour"])
        basis = f"{g_per_hour:g} g per hour"
    return Embodied(
        model=row["model"],
        scope=row["scope"],
        g_per_hour=g_per_hour,
        basis=basis,
        source=f"{row['source']}, {row['year']}",
    )
