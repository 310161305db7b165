"""The report row: one per job, the contract with every table, file and page. ``None`` is unknown, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """What one job was and cost. Field names carry their unit; ``energy_kwh`` is IT energy before PUE.

    ``energy_kwh`` is the sum of the three kinds (GPU, CPU, DRAM) as far as they are known; a kind that is not has its
    reason. Of the host's CPU and DRAM a job has the part that its processor time was of the host's.

    Attributes:
        accelerator: accelerator type it ran on (of its last attempt); ``None`` if it never ran.
        state: ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        attempts: attempts started.
        gpu_count: GPUs it held, over all its nodes; a part of one where it shared it.
        duration_s: seconds from the first phase's start to the last phase's end, summed over the attempts that count
            towards the result: the last one, and those whose checkpoints it went on from.
        energy_by_phase_kwh: phase name to kWh, all attempts that count towards the result.
        energy_wasted_kwh: kWh of the other attempts, and of all where the last one failed; part of ``energy_kwh``.
        energy_method: weakest method among its entries: counter, integrated, modelled, replayed, simulated.
        energy_quality: flags of its entries, sorted.
        energy_disagreement_percent: 100 x (Prometheus - energy log) / energy log, of GPU energy, signed.
        co2e_kg: operational, PUE included; location-based.
        score_base: metric before training; ``score``: after.
        gain_percent: relative gain, sign turned where lower is better; in points when ``cegi_gain`` is points.
        cegi_g: gCO2e per percent gained per million trainable parameters.
        cegi_reason: why ``cegi_g`` is ``None``; ``None`` when it is not.
        power_mean_w: mean power of its devices over its attempts.
        reasons: why each field that is ``None`` is; not a field of the contract, so left out of ``as_dict``.
    """

    job_id: str
    name: str
    kind: str
    task: str
    model: str
    architecture: str | None
    accelerator: str | None
    gpu_count: int | float
    quantization: str
    adapter: str
    seed: int
    state: str
    attempts: int
    trainable_parameters: int | None
    total_parameters: int | None
    duration_s: float | None
    energy_kwh: float | None
    energy_gpu_kwh: float | None
    energy_cpu_kwh: float | None
    energy_dram_kwh: float | None
    energy_by_phase_kwh: Mapping[str, float] | None
    energy_wasted_kwh: float | None
    energy_method: str | None
    energy_quality: tuple[str, ...] | None
    energy_disagreement_percent: float | None
    pue: float | None
    carbon_intensity_g_per_kwh: float | None
    carbon_source: str | None
    co2e_kg: float | None
    embodied_kg: float | None
    metric: str | None
    score_base: float | None
    score: float | None
    gain_percent: float | None
    cegi_g: float | None
    cegi_reason: str | None
    wh_per_1000_inferences: float | None
    g_per_1000_inferences: float | None
    joules_per_sample: float | None
    joules_per_token: float | None
    samples_per_second: float | None
    power_mean_w: float | None
    power_cap_w: float | None
    predicted_energy_kwh: float | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The fields of the contract, in its order, JSON-ready."""
        row: dict[str, object] = {name: getattr(self, name) for name in FIELDS}
        row["energy_by_phase_kwh"] = None if self.energy_by_phase_kwh is None else dict(self.energy_by_phase_kwh)
        row["energy_quality"] = None if self.energy_quality is None else list(self.energy_quality)
        return row


FIELDS: tuple[str, ...] = tuple(name for name in ReportRow.__dataclass_fields__ if name != "reasons")
"""The contract's fields, in order."""
