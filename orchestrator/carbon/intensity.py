"""From kilowatt-hours to grams: the yearly intensity of a region's electricity, and what a facility adds to IT energy.

Figures are yearly averages of a region, location-based. Each carries its source and year. A country is named by its
ISO 3166 code (``FRA`` or ``FR``), a cloud's region as ``aws:us-east-1``, ``gcp:europe-west4`` or ``azure:westeurope``.
Google publishes the grid intensity of its regions; a region of another cloud has the figure of its country.

Left out although Ember has a figure: the Central African Republic (0), the Falklands and Montserrat (1,000), where
figures are of so little electricity that rounding made them.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from workers.errors import UnknownNameError

WORLD = "WORLD"
"""The region that stands for all others."""
GREAT_BRITAIN = "GB"
"""Alpha-2 code of the country with a grid operator's own source."""

DEFAULT_PUE = 1.56
"""Power usage effectiveness where a facility's own is not known: the average of the Uptime Institute's 2024 survey.

Most tools take 1, which counts no cooling and no power conversion at all.
"""
DEFAULT_PUE_SOURCE = "survey average (default, none was given): Uptime Institute Global Data Center Survey 2024"

_LISTING = "ISO 3166 codes of countries (USA or US), WORLD, and regions of clouds as aws:…, gcp:… and azure:…"


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Carbon intensity of a region's electricity.

    Attributes:
        region: ISO 3166 alpha-3 code, ``WORLD``, or a cloud's region.
        country: the alpha-2 code of the country it is in; ``None`` for the world.
        name: the region in words.
        g_per_kwh: gCO2e per kWh.
        year: the year the figure is of.
        source: who published it; says so when the region is only the default.
    """

    region: str
    country: str | None
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
        UnknownNameError: the region is not in the table; names the nearest.
    """
    if region is None:
        world = _table()[WORLD]
        return replace(world, source=f"world average (default, no region was given): {world.source}, {world.year}")
    found = _by_name().get(region.strip().upper())
    if found is None:
        raise UnknownNameError("region", region, _table(), listing=_LISTING + _in_words(region))
    return replace(found, source=f"{found.source}, {found.year}")


def facility_pue(pue: float | None) -> Pue:
    """The facility's PUE as given, or the survey's average."""
    return Pue(value=DEFAULT_PUE, source=DEFAULT_PUE_SOURCE) if pue is None else Pue(value=pue, source="as given")


def co2e_kg(energy_kwh: float, pue: float, g_per_kwh: float) -> float:
    """Kilograms of CO2e of ``energy_kwh`` of IT energy, the facility's overhead included."""
    return energy_kwh * pue * g_per_kwh / 1000


def _in_words(region: str) -> str:
    """The code of a country that was named in words, to be added to what is known."""
    words = region.strip().casefold()
    return next((f"; {one.name} is {code}" for code, one in _table().items() if one.name.casefold() == words), "")


@functools.cache
def _by_name() -> Mapping[str, Intensity]:
    """Every name a region may be given, in capitals."""
    names = {region.upper(): found for region, found in _table().items()}
    # Of a cloud's region the alpha-2 code is its country's, which is a name of its own.
    codes = {found.country: found for found in names.values() if found.country and ":" not in found.region}
    return codes | names


@functools.cache
def _table() -> Mapping[str, Intensity]:
    countries = {
        row["region"]: Intensity(
            region=row["region"],
            country=row["iso2"] or None,
            name=row["name"],
            g_per_kwh=float(row["g_per_kwh"]),
            year=int(row["year"]),
            source=row["source"],
        )
        for row in _rows("intensity.csv")
    }
    return countries | {row["region"]: _of_cloud(row, countries[row["country"]]) for row in _rows("cloud.csv")}


def _of_cloud(row: Mapping[str, str], country: Intensity) -> Intensity:
    """A cloud's region with the figure published for it, else with its country's."""
    name = f"{row['place']} ({country.name})"
    if not row["g_per_kwh"]:
        return replace(country, region=row["region"], name=name, source=f"{country.name}: {country.source}")
    figure = float(row["g_per_kwh"])
    return replace(
        country, region=row["region"], name=name, g_per_kwh=figure, year=int(row["year"]), source=row["source"]
    )


def _rows(name: str) -> Iterator[Mapping[str, str]]:
    with Path(__file__).with_name(name).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
