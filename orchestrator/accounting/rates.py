"""Fields of a row: energy and time per sample, token and inference, of the phase a job is about. Pure."""

from __future__ import annotations

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import EnergySum
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.phases import is_count, total_of
from orchestrator.accounting.unknown import Figures, Unknown
from workers.contract import Kind, Phase
from workers.metric_log import INFERENCES, SAMPLES, TOKENS

PHASE_OF: dict[Kind, Phase] = {
    "finetune": Phase.TRAIN,
    "evaluate": Phase.EVALUATE,
    "inference": Phase.INFERENCE,
}
"""The phase whose work a kind of job is run for."""

NO_INFERENCE = "it measured no inference: its manifest has no section inference"


def rate_figures(evidence: Evidence, basis: CarbonBasis | Unknown) -> Figures:
    """Per sample, per token, per second and per 1,000 inferences, of the last attempt and those it went on from."""
    phase = PHASE_OF[evidence.job.spec.kind]
    lasted_s = _whole_phase_s(evidence, phase)
    energy = lasted_s if isinstance(lasted_s, Unknown) else evidence.energy_of(phase)
    samples = lasted_s if isinstance(lasted_s, Unknown) else _samples(evidence, phase)
    tokens = lasted_s if isinstance(lasted_s, Unknown) else _counted(evidence, TOKENS, phase)
    per_1000 = _wh_per_1000(evidence)
    return {
        "joules_per_sample": _joules_per(energy, samples),
        "joules_per_token": _joules_per(energy, tokens),
        "samples_per_second": _per_second(lasted_s, samples, phase),
        "wh_per_1000_inferences": per_1000,
        "g_per_1000_inferences": _grams(evidence, per_1000, basis),
    }


def _whole_phase_s(evidence: Evidence, phase: Phase) -> float | Unknown:
    """Seconds of the phase, where it was ended and all it counted is at hand; a part of it would give a wrong ratio."""
    for number, log in (*evidence.earlier.items(), (evidence.last_name.removeprefix("attempt "), evidence.log)):
        if log.unreadable:
            return Unknown(f"{len(log.unreadable)} files of the metric log of attempt {number} are torn")
    span = next((span for span in evidence.spans if span.phase is phase), None)
    if span is None:
        return evidence.unlogged(f"{phase} phase")
    return (
        evidence.lasted_s(phase) if span.complete else Unknown(f"the {phase} phase of {evidence.last_name} did not end")
    )


def _counted(evidence: Evidence, name: str, phase: Phase) -> float | Unknown:
    total = total_of(evidence.chain_samples, name, phase)
    if total is None and name == TOKENS:
        return Unknown("the task has no tokens")
    if total is not None and not is_count(total):
        return Unknown(f"{evidence.last_name} logged {name} that are no counts in the {phase} phase")
    return total or Unknown(f"{evidence.last_name} counted no {name} in the {phase} phase")


def _samples(evidence: Evidence, phase: Phase) -> float | Unknown:
    """Samples of the phase; an inference is one where samples are not counted apart."""
    samples = _counted(evidence, SAMPLES, phase)
    return (
        _counted(evidence, INFERENCES, phase) if isinstance(samples, Unknown) and phase is Phase.INFERENCE else samples
    )


def _joules_per(energy: EnergySum | Unknown, count: float | Unknown) -> float | Unknown:
    if isinstance(energy, Unknown):
        return energy
    return count if isinstance(count, Unknown) else energy.energy_j / count


def _per_second(lasted_s: float | Unknown, samples: float | Unknown, phase: Phase) -> float | Unknown:
    if isinstance(lasted_s, Unknown):
        return lasted_s
    if isinstance(samples, Unknown):
        return samples
    return samples / lasted_s if lasted_s > 0 else Unknown(f"the {phase} phase took no time")


def _wh_per_1000(evidence: Evidence) -> float | Unknown:
    """Of the inference phase, whatever the job is about."""
    if evidence.job.spec.measured_inference is None:
        return Unknown(NO_INFERENCE)
    lasted_s, energy = _whole_phase_s(evidence, Phase.INFERENCE), evidence.last_energy_of(Phase.INFERENCE)
    if isinstance(lasted_s, Unknown):
        return lasted_s
    if isinstance(energy, Unknown):
        return energy
    # All inferences are counted at their end, so an attempt that did not come there has none beside its energy.
    count = _counted(evidence, INFERENCES, Phase.INFERENCE)
    # kWh to Wh, and one to 1,000 inferences.
    return count if isinstance(count, Unknown) else energy.energy_kwh * 1000 * 1000 / count


def _grams(evidence: Evidence, wh: float | Unknown, basis: CarbonBasis | Unknown) -> float | Unknown:
    if isinstance(wh, Unknown):
        return wh
    return basis if isinstance(basis, Unknown) else basis.grams(wh / 1000, evidence.last_entries_of(Phase.INFERENCE))
