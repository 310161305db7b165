"""Report rows for tests: one plausible finished job, and a small study made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.accounting.row import ReportRow

TRAINABLE = 25_000

_FINISHED: Mapping[str, Any] = {
    "job_id": "digits-vit-t4-0",
    "name": "digits",
    "kind": "finetune",
    "task": "digits",
    "model": "tiny/vit",
    "architecture": "vit",
    "accelerator": "T4",
    "gpu_count": 1,
    "quantization": "none",
    "adapter": "lora-r8",
    "seed": 0,
    "state": "succeeded",
    "attempts": 1,
    "trainable_parameters": TRAINABLE,
    "total_parameters": 140_000,
    "duration_s": 12.5,
    "energy_kwh": 0.0002,
    "energy_gpu_kwh": 0.0002,
    "energy_cpu_kwh": None,
    "energy_dram_kwh": None,
    "energy_by_phase_kwh": {"load": 0.00005, "train": 0.0001, "evaluate": 0.00005},
    "energy_wasted_kwh": 0.0,
    "energy_method": "counter",
    "energy_quality": (),
    "energy_disagreement_percent": 0.4,
    "pue": 1.56,
    "carbon_intensity_g_per_kwh": 475.0,
    "carbon_source": "world, Our World in Data / Ember 2023",
    "co2e_kg": 0.0002 * 1.56 * 0.475,
    "embodied_kg": None,
    "metric": "accuracy",
    "score_base": 0.5,
    "score": 0.6,
    "gain_percent": 20.0,
    "cegi_g": 0.0741 / (20.0 * 0.025),
    "cegi_reason": None,
    "wh_per_1000_inferences": None,
    "g_per_1000_inferences": None,
    "joules_per_sample": 0.12,
    "joules_per_token": None,
    "samples_per_second": 480.0,
    "power_mean_w": 57.6,
    "power_cap_w": None,
    "predicted_energy_kwh": None,
}
REASONS = {
    "energy_cpu_kwh": "the node has no readable RAPL counter",
    "energy_dram_kwh": "the node has no readable RAPL counter",
    "embodied_kg": "no embodied figure is kept for this accelerator",
    "wh_per_1000_inferences": "the job has no inference phase",
    "g_per_1000_inferences": "the job has no inference phase",
    "joules_per_token": "the task has no tokens",
    "power_cap_w": "no cap was asked for",
    "predicted_energy_kwh": "no prediction was made",
}


def row(**changes: object) -> ReportRow:
    """A finished job with ``changes``."""
    return ReportRow(**{"reasons": REASONS, **_FINISHED, **changes})


def study(*, method: str = "simulated") -> list[ReportRow]:
    """Two architectures on two accelerators with three seeds each; one job failed, one was cancelled before it ran."""
    base = {"vit": (0.52, 0.78, 24_576), "convnext": (0.61, 0.83, 11_264)}
    power = {"T4": (62.0, 9.1), "A100-80GB": (171.0, 4.4)}
    rows = []
    for architecture, (before, after, trainable) in base.items():
        for accelerator, (watts, seconds) in power.items():
            for seed, off in enumerate((-0.011, 0.004, 0.009)):
                took = seconds * (1.3 if architecture == "convnext" else 1.0) * (1 + off * 3)
                kwh, score, score_base = watts * took / 3.6e6, after + off, before - off / 2
                gain = 100 * (score - score_base) / score_base
                carbon = kwh * 1.56 * 475
                rows.append(
                    row(
                        job_id=f"digits-{architecture}-{accelerator.lower()}-{seed}",
                        model=f"tiny/{architecture}",
                        architecture=architecture,
                        accelerator=accelerator,
                        seed=seed,
                        trainable_parameters=trainable,
                        duration_s=took,
                        energy_kwh=kwh,
                        energy_gpu_kwh=kwh,
                        energy_by_phase_kwh={"load": kwh * 0.2, "train": kwh * 0.7, "evaluate": kwh * 0.1},
                        energy_method=method,
                        energy_disagreement_percent=100 * off,
                        co2e_kg=carbon / 1000,
                        score_base=score_base,
                        score=score,
                        gain_percent=gain,
                        cegi_g=0.7 * carbon / (gain * trainable / 1e6),
                        joules_per_sample=watts * took * 0.7 / 5400,
                        samples_per_second=5400 / took,
                        power_mean_w=watts * (1 + off),
                    )
                )
    return [*rows, failed(method=method), cancelled()]


def failed(*, method: str = "simulated") -> ReportRow:
    """A job that ran, drew power, and gave nothing."""
    return row(
        job_id="digits-vit-t4-9", seed=9, state="failed", attempts=2, energy_kwh=0.00009, energy_gpu_kwh=0.00009,
        energy_wasted_kwh=0.00009, energy_method=method, co2e_kg=0.0000667, score=None, gain_percent=None, cegi_g=None,
        cegi_reason="the job failed, so there is no final score", power_mean_w=61.0, energy_disagreement_percent=None,
        joules_per_sample=None, samples_per_second=None,
        reasons={**REASONS, "score": "the job failed in its train phase", "gain_percent": "there is no final score",
                 "energy_disagreement_percent": "Prometheus has no samples of the job's span"},
    )  # fmt: skip


def cancelled() -> ReportRow:
    """A job that never ran: nothing is known of its cost."""
    never = "the job never ran"
    unknown = dict.fromkeys(
        (
            "accelerator", "trainable_parameters", "total_parameters", "duration_s", "energy_kwh", "energy_gpu_kwh",
            "energy_by_phase_kwh", "energy_wasted_kwh", "energy_method", "energy_quality",
            "energy_disagreement_percent", "pue", "carbon_intensity_g_per_kwh", "carbon_source", "co2e_kg", "metric",
            "score_base", "score", "gain_percent", "cegi_g", "joules_per_sample", "samples_per_second", "power_mean_w",
        )
    )  # fmt: skip
    return row(
        job_id="digits-vit-h100-0", state="cancelled", attempts=0, **unknown, cegi_reason=never,
        reasons={**REASONS, **dict.fromkeys(unknown, never)},
    )  # fmt: skip
