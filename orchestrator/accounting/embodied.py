"""What a job answers for of the carbon of making the GPUs it held. Pure.

A simulated board has the figure of the type it simulates, as its joules are that type's: the row's energy says
``simulated``, and so does the figure's source.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.unknown import Unknown
from orchestrator.carbon.embodied import embodied_models, embodied_of
from workers.contract import EnergyEntry, Method
from workers.units import NS_PER_S

NS_PER_HOUR = 3600 * NS_PER_S


@dataclass(frozen=True, kw_only=True)
class JobEmbodied:
    """Embodied carbon of a job, kg, and which figures it is made of."""

    kg: float
    provenance: str


def embodied_in(evidence: Evidence) -> JobEmbodied | Unknown:
    """The part of each GPU's life that the job's attempts, failed ones too, had it reserved for."""
    total = evidence.total()
    if isinstance(total, Unknown):
        return total
    entries = [entry for entry in evidence.entries if entry.kind == "gpu"]
    if not entries:
        return Unknown("no GPU of this job was metered")
    grams, sources = 0.0, dict[str, None]()
    for model, reserved_h in sorted(_reserved_h(entries).items()):
        figure = embodied_of(model)
        if figure is None:
            known = ", ".join(embodied_models())
            return Unknown(f"no published figure of the embodied carbon of a {model} is kept (there is of: {known})")
        grams += figure.g_per_hour * reserved_h
        sources[figure.provenance] = None
    is_simulated = any(entry.method is Method.SIMULATED for entry in entries)
    return JobEmbodied(kg=grams / 1000, provenance="; ".join(sources) + (" (simulated board)" if is_simulated else ""))


def _reserved_h(entries: list[EnergyEntry]) -> dict[str, float]:
    """Accelerator type to hours of it that were reserved: each attempt's hold on each board × its share of it."""
    held: dict[tuple[int | None, str], list[EnergyEntry]] = {}
    for entry in entries:
        held.setdefault((entry.attempt, entry.device), []).append(entry)
    hours: dict[str, float] = {}
    for parts in held.values():
        span_ns = max(part.end_ns for part in parts) - min(part.start_ns for part in parts)
        booked_ns = sum(part.end_ns - part.start_ns for part in parts)
        shared_ns = sum((part.end_ns - part.start_ns) * part.share for part in parts)
        share = shared_ns / booked_ns if booked_ns else 1.0
        hours[parts[0].model] = hours.get(parts[0].model, 0.0) + span_ns * share / NS_PER_HOUR
    return hours
