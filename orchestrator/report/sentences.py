"""What a job's details say, in sentences: meters, load, parity, intervals, budget. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.accounting.details import Details
from orchestrator.accounting.row import ReportRow
from orchestrator.report.figures import format_g, format_number, format_percent, format_wh
from orchestrator.report.headline import tag_of


def detail_sentences(row: ReportRow, details: Details) -> list[str]:
    """One for each figure that is known; what is not known is in the details' reasons."""
    figures: Mapping[str, Any] = details.figures
    if not figures:
        return []
    said = f" ({tag_of(row.energy_method)})" if tag_of(row.energy_method) else ""
    told = [
        *_meters(figures["metering"]),
        *_carbon(figures["interval"], said),
        *_units(row, figures, said),
        *_budget(figures["budget"]),
    ]
    return [sentence for sentence in told if sentence]


def _meters(metering: Mapping[str, Any]) -> list[str]:
    prometheus, power = metering["prometheus_disagreement_percent"], metering["power_disagreement_percent"]
    recovered, assumed = metering["recovered_kwh"], metering["assumed_kwh"]
    return [
        "" if prometheus is None else f"Prometheus differs from the energy log by {format_percent(prometheus)}",
        "" if power is None else f"power readings differ from the counter by {format_percent(power)}",
        f"{format_wh(recovered)} are from Prometheus, since the energy log lacks them" if recovered else "",
        f"{format_wh(assumed)} (modelled) are watts of its manifest, since no meter counted them" if assumed else "",
    ]


def _carbon(interval: Mapping[str, Any], said: str) -> list[str]:
    parts = ", ".join(
        part["part"] if part["low_percent"] is not None else f"{part['part']} not known: {part['reason']}"
        for part in interval["parts"]
    )
    co2e, figure = interval["co2e_kg"], interval["cegi_g"]
    return [
        ""
        if co2e is None
        else f"CO2e between {format_g(1000 * co2e['low'])} and {format_g(1000 * co2e['high'])}{said} ({parts})",
        "" if figure is None else f"CEGI between {format_g(figure['low'])} and {format_g(figure['high'])}{said}",
    ]


def _units(row: ReportRow, figures: Mapping[str, Any], said: str) -> list[str]:
    load, parity, per_1000 = figures["load"]["energy_wh"], figures["parity_inferences"], row.wh_per_1000_inferences
    return [
        "" if load is None else f"loading took {format_wh(load / 1000)}{said}",
        "" if per_1000 is None else f"1,000 inferences take {format_wh(per_1000 / 1000)}{said} beside that",
        ""
        if parity is None
        else f"{format_number(round(parity))} inferences take as much energy as the training did{said}",
    ]


def _budget(budget: Mapping[str, Any] | None) -> list[str]:
    units = {"energy_kwh": "kWh", "co2e_kg": "kg CO2e"}
    return [
        f"budget of {format_number(of['budget'])} {units[unit]}: "
        + ("what was spent is not known" if of["left"] is None else f"{format_number(of['left'])} left")
        for unit, of in (budget or {}).items()
    ]
