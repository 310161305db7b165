"""What a column of a report is called, and its unit: for every field of a record and of a roll-up. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Heading:
    """A column.

    Attributes:
        title: in words.
        kind: ``energy`` and ``mass`` are shown in the unit that suits the column; a ``number`` in ``unit``.
        unit: of a number; empty for a count, a score or words.
        factor: to kWh or g, which energies and masses are scaled from.
        of_energy: whether it is computed from metered energy, so that it is only as good as the energy's method.
    """

    title: str
    kind: Literal["text", "number", "energy", "mass"] = "text"
    unit: str = ""
    factor: float = 1.0
    of_energy: bool = False


def _energy(title: str) -> Heading:
    return Heading(title, "energy", of_energy=True)


def _mass(title: str, factor: float = 1000.0) -> Heading:
    return Heading(title, "mass", factor=factor, of_energy=True)


HEADINGS: Mapping[str, Heading] = {
    "job_id": Heading("Job"),
    "name": Heading("Name"),
    "kind": Heading("Kind"),
    "task": Heading("Task"),
    "model": Heading("Model"),
    "architecture": Heading("Architecture"),
    "accelerator": Heading("Accelerator"),
    "gpu_count": Heading("GPUs", "number"),
    "quantization": Heading("Quantization"),
    "adapter": Heading("Adapter"),
    "seed": Heading("Seed", "number"),
    "state": Heading("State"),
    "attempts": Heading("Attempts", "number"),
    "trainable_parameters": Heading("Trainable parameters", "number"),
    "total_parameters": Heading("Parameters", "number"),
    "duration_s": Heading("Duration", "number", "s"),
    "energy_kwh": _energy("Energy"),
    "energy_gpu_kwh": _energy("GPU energy"),
    "energy_cpu_kwh": _energy("CPU energy"),
    "energy_dram_kwh": _energy("DRAM energy"),
    "energy_by_phase_kwh": Heading("Energy by phase", of_energy=True),
    "energy_wasted_kwh": _energy("Wasted energy"),
    "energy_method": Heading("Energy method"),
    "energy_quality": Heading("Flags"),
    "energy_disagreement_percent": Heading("Prometheus differs by", "number", "%"),
    "pue": Heading("PUE", "number"),
    "carbon_intensity_g_per_kwh": Heading("Carbon intensity", "number", "g/kWh"),
    "carbon_source": Heading("Source of carbon"),
    "co2e_kg": _mass("CO2e"),
    "embodied_kg": Heading("Embodied CO2e", "mass", factor=1000.0),
    "metric": Heading("Metric"),
    "score_base": Heading("Base score", "number"),
    "score": Heading("Score", "number"),
    "gain_percent": Heading("Gain", "number", "%"),
    "cegi_g": _mass("CEGI", 1.0),
    "cegi_reason": Heading("Why no CEGI"),
    "wh_per_1000_inferences": Heading("Energy per 1,000 inferences", "number", "Wh", of_energy=True),
    "g_per_1000_inferences": Heading("CO2e per 1,000 inferences", "number", "g", of_energy=True),
    "joules_per_sample": Heading("Energy per sample", "number", "J", of_energy=True),
    "joules_per_token": Heading("Energy per token", "number", "J", of_energy=True),
    "samples_per_second": Heading("Samples per second", "number", "1/s"),
    "power_mean_w": Heading("Mean power", "number", "W", of_energy=True),
    "power_cap_w": Heading("Power cap", "number", "W"),
    "predicted_energy_kwh": Heading("Predicted energy", "energy"),
    "user": Heading("User"),
    "team": Heading("Team"),
    "project": Heading("Project"),
    "run_id": Heading("Run"),
    "date": Heading("Submitted"),
    "node": Heading("Node"),
    "day": Heading("Day"),
    "account": Heading("Account"),
    "jobs": Heading("Jobs", "number"),
    "jobs_unknown": Heading("Jobs unknown", "number"),
}
METHOD = "energy_method"
"""The column that goes with every figure that is computed from energy."""
