"""Fields of a row: what came out of the job (parameters, scores, gain) and its CEGI. Pure."""

from __future__ import annotations

import math

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.evidence import NOT_RUN, Evidence
from orchestrator.accounting.phases import is_count, last_of
from orchestrator.accounting.unknown import Figures, Unknown, known
from orchestrator.cegi import NO_CARBON, NO_PARAMETERS, NOT_A_NUMBER, Gain, cegi, gain_percent
from orchestrator.lifecycle import AttemptState
from workers.contract import Phase
from workers.errors import UnknownNameError
from workers.metric_log import POWER_CAP_WATTS, SCORE_PREFIX, TOTAL_PARAMETERS, TRAINABLE_PARAMETERS
from workers.tasks import task_info
from workers.units import NS_PER_S

NO_SCORES = "an inference job takes no scores"
NOTHING_TRAINED = "nothing was trained: only a finetune job can gain"


def outcome_figures(evidence: Evidence, basis: CarbonBasis | Unknown) -> Figures:
    """Parameters, duration, cap, scores, gain and CEGI of the last attempt."""
    trainable = _parameters(evidence, TRAINABLE_PARAMETERS)
    metric = _metric(evidence)
    gain = _gain(evidence, metric)
    return {
        "trainable_parameters": trainable,
        "total_parameters": _parameters(evidence, TOTAL_PARAMETERS),
        "duration_s": _duration_s(evidence),
        "power_cap_w": _power_cap(evidence),
        "metric": metric,
        "score_base": _score(evidence, metric, Phase.BASELINE),
        "score": _score(evidence, metric, Phase.EVALUATE),
        "gain_percent": known(gain.percent, gain.reason),
        **_cegi(evidence, basis, gain, trainable),
    }


def _parameters(evidence: Evidence, name: str) -> int | Unknown:
    value = last_of(evidence.log.samples, name)
    if value is not None and not is_count(value):
        return Unknown(f"{evidence.last_name} logged {name} that are no count")
    return evidence.unlogged(name) if value is None else int(value)


def _duration_s(evidence: Evidence) -> float | Unknown:
    if not evidence.spans:
        return evidence.unlogged("phase")
    lasted_ns = [
        max(span.end_ns for span in spans) - min(span.start_ns for span in spans)
        for _, spans in evidence.chain_logs
        if spans
    ]
    return sum(lasted_ns) / NS_PER_S


def _power_cap(evidence: Evidence) -> float | Unknown:
    wanted = evidence.job.spec.power
    if wanted.cap_watts is None and wanted.cap_percent is None:
        return Unknown("no power cap was asked for")
    cap_w = last_of(evidence.log.samples, POWER_CAP_WATTS)
    if cap_w is not None and not is_count(cap_w):
        return Unknown(f"{evidence.last_name} logged a power cap that is none")
    return known(cap_w, evidence.unlogged("power cap").reason)


def _metric(evidence: Evidence) -> str | Unknown:
    spec = evidence.job.spec
    if spec.kind == "inference":
        return Unknown(NO_SCORES)
    try:
        metrics = task_info(spec.task).metrics
    except UnknownNameError as error:
        return Unknown(str(error).rstrip("."))
    return spec.evaluation.metric or (metrics[0] if metrics else Unknown(f"task {spec.task} has no score"))


def _logged_score(evidence: Evidence, metric: str, phase: Phase) -> float | None:
    if phase is Phase.BASELINE and evidence.baseline is not None:
        return evidence.baseline.score(metric)
    return last_of(evidence.log.samples, SCORE_PREFIX + metric, phase)


def _score(evidence: Evidence, metric: str | Unknown, phase: Phase) -> float | Unknown:
    if isinstance(metric, Unknown):
        return metric
    if phase is Phase.BASELINE and evidence.job.spec.kind != "finetune":
        return Unknown(NOTHING_TRAINED)
    value = _logged_score(evidence, metric, phase)
    if value is None and phase is Phase.BASELINE and evidence.baseline is not None:
        return Unknown(evidence.baseline.unlogged(metric))
    if value is None:
        return evidence.unlogged(f"{metric} in the {phase} phase")
    return value if math.isfinite(value) else Unknown(NOT_A_NUMBER)


def _gain(evidence: Evidence, metric: str | Unknown) -> Gain:
    spec = evidence.job.spec
    if isinstance(metric, Unknown):
        return Gain(percent=None, reason=metric.reason)
    if spec.kind != "finetune":
        return Gain(percent=None, reason=NOTHING_TRAINED)
    if evidence.last is None:
        return Gain(percent=None, reason=NOT_RUN)
    base, score = (_logged_score(evidence, metric, phase) for phase in (Phase.BASELINE, Phase.EVALUATE))
    if base is None and evidence.baseline is not None:
        return Gain(percent=None, reason=evidence.baseline.unlogged(metric))
    if evidence.last.state is AttemptState.RUNNING and None in (base, score):
        return Gain(percent=None, reason=f"{evidence.last_name} still runs and has not taken both scores")
    return gain_percent(
        base,
        score,
        lower_is_better=metric in task_info(spec.task).lower_is_better,
        mode=spec.accounting.cegi_gain,
    )


def _cegi(evidence: Evidence, basis: CarbonBasis | Unknown, gain: Gain, trainable: int | Unknown) -> Figures:
    """CEGI counts the chain's train phases, or with ``scope: all`` everything the job drew, failures included."""
    scope = evidence.job.spec.accounting.cegi_scope
    energy = evidence.total() if scope == "all" else evidence.energy_of(Phase.TRAIN)
    entries = evidence.entries if scope == "all" else evidence.entries_of(Phase.TRAIN)
    gap = next((part.reason for part in (basis, energy) if isinstance(part, Unknown)), None)
    if isinstance(basis, Unknown) or isinstance(energy, Unknown):
        grams = None
    else:
        grams = basis.grams(energy.energy_kwh, entries)
    found = cegi(grams, gain, None if isinstance(trainable, Unknown) else trainable)
    if found.value is not None:
        return {"cegi_g": found.value, "cegi_reason": Unknown("cegi_g is known")}
    reason = f"{NO_CARBON}: {gap}" if gap is not None and found.reason == NO_CARBON else found.reason
    if isinstance(trainable, Unknown) and found.reason == NO_PARAMETERS:  # not counted is not the same as none
        reason = f"how many parameters were trained is not known: {trainable.reason}"
    return {"cegi_g": Unknown(reason or ""), "cegi_reason": reason}
