"""The page's tables of carbon: which factors were used, and SCI per functional unit. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.accounting.row import ReportRow
from orchestrator.carbon.sci import sci_g
from orchestrator.report.figures import UNKNOWN, format_number, mass_unit
from orchestrator.report.headline import tag_of
from orchestrator.report.view import Column, Entry, Table
from workers.units import joules_to_kwh, kwh_to_joules

SCI_UNITS = 1000
"""Samples that SCI is shown for: of one it is micrograms."""


def sources_table(rows: Sequence[ReportRow]) -> Table | None:
    """Carbon intensity, PUE and embodied carbon with their sources; ``None`` when no row has any."""
    groups: dict[tuple[str | None, float | None], list[float | None]] = {}
    for row in rows:
        if any(part is not None for part in (row.carbon_source, row.carbon_intensity_g_per_kwh, row.pue)):
            groups.setdefault((row.carbon_source, row.pue), []).append(row.carbon_intensity_g_per_kwh)
    if not groups:
        return None
    return Table(
        ident="sources",
        caption="Carbon intensity, PUE and embodied carbon used",
        about="",
        columns=[
            Column(title="Source", numeric=False),
            Column(title="Intensity", unit="g/kWh"),
            Column(title="PUE"),
            Column(title="Jobs"),
        ],
        rows=[
            [
                Entry(text=source or "unknown"),
                Entry(text=_range(intensities)),
                Entry(text=format_number(pue)),
                Entry(text=str(len(intensities))),
            ]
            for (source, pue), intensities in groups.items()
        ],
    )


def sci_table(rows: Sequence[ReportRow]) -> Table | None:
    """SCI of the jobs whose parts are all known; ``None`` when there are none."""
    parts = {row.job_id: (row, found) for row in rows if (found := sci_parts_g(row)) is not None}
    if not parts:
        return None
    unit = mass_unit(sum(found) for _, found in parts.values())
    return Table(
        ident="sci",
        caption=f"SCI (ISO/IEC 21031) per {format_number(SCI_UNITS)} samples",
        about="((energy × PUE × intensity) + embodied) per functional unit, of the phase the job is run for, with the"
        " mean intensity of the job. Jobs whose accelerator has no published embodied carbon are left out.",
        columns=[
            Column(title="Job", numeric=False),
            Column(title="Accelerator", numeric=False),
            Column(title="SCI", unit=unit.symbol),
            Column(title="of it electricity", unit=unit.symbol),
            Column(title="of it embodied", unit=unit.symbol),
        ],
        rows=[
            [
                Entry(text=job_id),
                Entry(text=row.accelerator or UNKNOWN, tag=tag_of(row.energy_method)),
                *(Entry(text=format_number(part_g * unit.factor)) for part_g in (sum(found), *found)),
            ]
            for job_id, (row, found) in parts.items()
        ],
    )


def sci_parts_g(row: ReportRow) -> tuple[float, float] | None:
    """Grams of electricity and of hardware per ``SCI_UNITS`` samples; ``None`` where a part of either is unknown.

    A sample has the part of the job's embodied carbon that its time is of the time the job held its devices, which is
    energy over mean power.
    """
    if (
        row.embodied_kg is None
        or row.joules_per_sample is None
        or row.pue is None
        or row.carbon_intensity_g_per_kwh is None
        or not (row.samples_per_second and row.energy_kwh and row.power_mean_w)
    ):
        return None
    held_s = kwh_to_joules(row.energy_kwh) / row.power_mean_w
    embodied_g = row.embodied_kg * 1000 / held_s / row.samples_per_second
    energy_kwh, intensity = joules_to_kwh(row.joules_per_sample), row.carbon_intensity_g_per_kwh
    total_g = sci_g(energy_kwh=energy_kwh, pue=row.pue, g_per_kwh=intensity, embodied_g=embodied_g, units=1)
    return SCI_UNITS * (total_g - embodied_g), SCI_UNITS * embodied_g


def _range(values: Sequence[float | None]) -> str:
    """The lowest and the highest, or the one there is; unknown where one is."""
    known = [value for value in values if value is not None]
    texts = dict.fromkeys(format_number(edge, digits=4) for edge in (min(known), max(known))) if known else {}
    return " – ".join(texts) or UNKNOWN
