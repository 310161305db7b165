"""Fields of a row: energy and time per sample, token and inference, of the phase a job is about. Pure."""

from __future__ import annotations

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import EnergySum
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.phases import PhaseSpan, is_count, total_of
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
    """Per sample, per token, per second and per 1,000 inferences, of the last attempt."""
    phase = PHASE_OF[evidence.job.spec.kind]
    span = _whole_phase(evidence, phase)
    energy = span if isinstance(span, Unknown) else evidence.energy_of(phase)
    samples = span if isinstance(span, Unknown) else _samples(evidence, phase)
    tokens = span if isinstance(span, Unknown) else _counted(evidence, TOKENS, phase)
    per_1000 = _wh_per_1000(evidence)
    return {
        "joules_per_sample": _joules_per(energy, samples),
        "joules_per_token": _joules_per(energy, tokens),
        "samples_per_second": _per_second(span, samples),
        "wh_per_1000_inferences": per_1000,
        "g_per_1000_inferences": _grams(evidence, per_1000, basis),
    }


def _whole_phase(evidence: Evidence, phase: Phase) -> PhaseSpan | Unknown:
    """The phase's span, where it was ended and all it counted is at hand; a part of it would give a wrong ratio."""
    if evidence.log.unreadable:
        return Unknown(f"{len(evidence.log.unreadable)} files of the metric log of {evidence.last_name} are torn")
    span = next((span for span in evidence.spans if span.phase is phase), None)
    if span is None:
        return evidence.unlogged(f"{phase} phase")
    return span if span.complete else Unknown(f"the {phase} phase of {evidence.last_name} did not end")


def _counted(evidence: Evidence, name: str, phase: Phase) -> float | Unknown:
    total = total_of(evidence.log.samples, name, phase)
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


def _per_second(span: PhaseSpan | Unknown, samples: float | Unknown) -> float | Unknown:
    if isinstance(span, Unknown):
        return span
    if isinstance(samples, Unknown):
        return samples
    return samples / span.duration_s if span.duration_s > 0 else Unknown(f"the {span.phase} phase took no time")


def _wh_per_1000(evidence: Evidence) -> float | Unknown:
    """Of the inference phase, whatever the job is about."""
    if evidence.job.spec.measured_inference is None:
        return Unknown(NO_INFERENCE)
    span, energy = _whole_phase(evidence, Phase.INFERENCE), evidence.energy_of(Phase.INFERENCE)
    if isinstance(span, Unknown):
        return span
    if isinstance(energy, Unknown):
        return energy
    count = _counted(evidence, INFERENCES, Phase.INFERENCE)
    # kWh to Wh, and one to 1,000 inferences.
    return count if isinstance(count, Unknown) else energy.energy_kwh * 1000 * 1000 / count


def _grams(evidence: Evidence, wh: float | Unknown, basis: CarbonBasis | Unknown) -> float | Unknown:
    if isinstance(wh, Unknown):
        return wh
    return basis if isinstance(basis, Unknown) else basis.grams(wh / 1000, evidence.entries_of(Phase.INFERENCE))
