"""From kilowatt-hours to grams: the intensity of a region's electricity, and what a facility adds to its IT energy.

Figures are yearly averages of a region, location-based. Each carries its source and year.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from workers.errors import UnknownNameError

WORLD = "WORLD"
"""The region that stands for all others."""

DEFAULT_PUE = 1.56
"""Power usage effectiveness where a facility's own is not known: the average of the Uptime Institute's 2024 survey.

Most tools take 1, which counts no cooling and no power conversion at all.
"""
DEFAULT_PUE_SOURCE = "survey average (default, none was given): Uptime Institute Global Data Center Survey 2024"


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Carbon intensity of a region's electricity.

    Attributes:
        region: ISO 3166 alpha-3 code, or ``WORLD``.
        name: the region in words.
        g_per_kwh: gCO2e per kWh.
        year: the year the figure is of.
        source: who published it; says so when the region is only the default.
    """

    region: str
    name: str
    g_per_kwh: float
    year: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Pue:
    """Power usage effectiveness: facility energy over IT energy, 1 or more, and who says so."""

    value: float
    source: str


def intensity_of(region: str | None) -> Intensity:
    """The intensity of ``region`` (any case), or of the world where none is given.

    Raises:
        UnknownNameError: the region is not in the table; lists those that are.
    """
    if region is None:
        world = _table()[WORLD]
        return replace(world, source=f"world average (default, no region was given): {world.source}, {world.year}")
    code = region.strip().upper()
    if code not in _table():
        raise UnknownNameError("region", region, _table())
    found = _table()[code]
    return replace(found, source=f"{found.source}, {found.year}")


def facility_pue(pue: float | None) -> Pue:
    """The facility's PUE as given, or the survey's average."""
    return Pue(value=DEFAULT_PUE, source=DEFAULT_PUE_SOURCE) if pue is None else Pue(value=pue, source="as given")


def co2e_kg(energy_kwh: float, pue: float, g_per_kwh: float) -> float:
    """Kilograms of CO2e of ``energy_kwh`` of IT energy, the facility's overhead included."""
    return energy_kwh * pue * g_per_kwh / 1000


@functools.cache
def _table() -> Mapping[str, Intensity]:
    with Path(__file__).with_name("intensity.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["region"]: Intensity(
                region=row["region"],
                name=row["name"],
                g_per_kwh=float(row["g_per_kwh"]),
                year=int(row["year"]),
                source=row["source"],
            )
            for row in csv.DictReader(file)
        }
