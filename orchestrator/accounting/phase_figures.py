"""What each phase of a job cost, per step, sample and token; warmed up, and prompt and answer apart. Pure.

These go beyond the report row: they are its ``details``. What is not known is ``Unknown`` with the reason.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.energy import EnergySum, held_s, sum_of, windows, within
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.phases import is_count, total_of
from orchestrator.accounting.shapes import Curves, shaped
from orchestrator.accounting.unknown import Unknown, known
from workers.contract import EnergyEntry, Phase
from workers.metric_log import (
    DECODE_SECONDS,
    INFERENCES,
    PREFILL_SECONDS,
    SAMPLES,
    TOKENS,
    TOKENS_DECODE,
    TOKENS_PREFILL,
    MetricSample,
)
from workers.units import NS_PER_S, mean_power_w

WARM_UP_SHARE = 0.1
"""The part of a phase's steps that is dropped as its warm-up, at least one: caches fill, kernels are chosen, clocks
and temperatures settle."""
NO_SPREAD = "the energy of two repeats or more (inference.repeats) is needed"
NO_STEPS = "too few steps to leave a warm-up out"

Figures = Mapping[str, object]
"""Names to values, each JSON-ready or ``Unknown``."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Some time of a phase: what it drew and what it counted.

    Attributes:
        resolution_s: the longest stretch that an edge falls into, over which power is taken to be even; ``None`` where
            the edges are the energy log's own.
    """

    seconds: float
    energy: EnergySum | Unknown
    entries: tuple[EnergyEntry, ...]
    counts: Mapping[str, float | None]
    resolution_s: float | None = None


def phase_figures(evidence: Evidence, basis: CarbonBasis | Unknown, curves: Curves) -> dict[str, Figures]:
    """Phase name to its figures, over all attempts that count; ``curves`` tell when energy was drawn in the last."""
    entries = shaped(_last_entries(evidence), curves)
    phases = dict.fromkeys(span.phase for _, spans in evidence.chain_logs for span in spans)
    return {phase.value: _phase(evidence, phase, basis, entries) for phase in phases}


def generation_figures(evidence: Evidence, basis: CarbonBasis | Unknown, curves: Curves) -> dict[str, Figures]:
    """``prefill`` and ``decode`` to their figures, where the metric log tells them apart; empty where it does not."""
    entries = shaped(_last_entries(evidence), curves)
    parts = {"prefill": (PREFILL_SECONDS, TOKENS_PREFILL), "decode": (DECODE_SECONDS, TOKENS_DECODE)}
    found: dict[str, Figures] = {}
    for name, (seconds, tokens) in parts.items():
        logged = [row for row in evidence.log.samples if row.name == seconds and row.phase is not None]
        rows = [row for row in logged if is_count(row.value)]
        if rows:
            spans = _disjoint([(row.time_ns - round(row.value * NS_PER_S), row.time_ns) for row in rows])
            counted = total_of(evidence.log.samples, tokens, rows[0].phase) if rows[0].phase else None
            window = _window(entries, spans, {TOKENS: counted})
            found[name] = _figures(window, basis)
    return found


def repeat_figures(evidence: Evidence, basis: CarbonBasis | Unknown, curves: Curves) -> dict[str, object]:
    """Each repeat of the inferences by its number, from the end of the one before to its own, and their spread.

    Empty where the last attempt did not come to the end of one.
    """
    ends = [row for row in evidence.log.samples if row.name == INFERENCES and row.phase is Phase.INFERENCE]
    start_ns = next((span.start_ns for span in evidence.spans if span.phase is Phase.INFERENCE), None)
    if start_ns is None:
        return {}
    entries = shaped(_last_entries(evidence), curves)
    found: dict[str, object] = {}
    joules = []
    for number, row in enumerate(ends, start=1):
        window = _window(entries, [(start_ns, row.time_ns)], {INFERENCES: row.value})
        counted = _counted(window, INFERENCES, "inference")
        found[str(number)] = {**_figures(window, basis), **counted}
        joules.append(counted["joules_per_inference"])
        start_ns = row.time_ns
    known_joules = [each for each in joules if isinstance(each, float)]
    if joules:
        enough = len(known_joules) == len(joules) > 1
        spread = statistics.stdev(known_joules) if enough else Unknown(NO_SPREAD)
        found["joules_per_inference_std"] = spread
    return found


def _phase(evidence: Evidence, phase: Phase, basis: CarbonBasis | Unknown, entries: Sequence[EnergyEntry]) -> Figures:
    own = [row for row in evidence.log.samples if row.phase is phase]
    counts = {name: total_of(evidence.chain_samples, name, phase) for name in (SAMPLES, TOKENS, INFERENCES)}
    steps = sum(
        len({row.step for row in logged if row.phase is phase and row.step is not None})
        for logged, _ in evidence.chain_logs
    )
    # Energy the agent booked to the phase, which knows its edges better than the metric log does.
    booked = evidence.entries_of(phase)
    energy = evidence.energy_of(phase)
    lasted_s = held_s(windows(booked))
    whole = _Window(
        seconds=lasted_s or evidence.lasted_s(phase),
        energy=energy,
        entries=booked,
        counts={**counts, "steps": float(steps) or None},
    )
    is_complete = any(span.phase is phase and span.complete for span in evidence.spans)
    return {"complete": is_complete, **_figures(whole, basis), "steady": _steady(entries, own, basis)}


def _steady(entries: Sequence[EnergyEntry], own: Sequence[MetricSample], basis: CarbonBasis | Unknown) -> object:
    """The phase in the last attempt without its warm-up: from the end of the last step dropped to the last step's."""
    counted = [row for row in own if row.name in (SAMPLES, TOKENS) and row.step is not None]
    ended = {row.step: row.time_ns for row in sorted(counted, key=lambda row: row.time_ns)}
    steps = sorted(ended, key=lambda step: ended[step])
    dropped = max(1, round(WARM_UP_SHARE * len(steps)))
    if len(steps) < dropped + 2:
        return Unknown(NO_STEPS)
    start_ns, end_ns = ended[steps[dropped - 1]], ended[steps[-1]]
    kept = [row for row in counted if start_ns < row.time_ns <= end_ns]
    counts = {name: total_of(kept, name, own[0].phase) for name in (SAMPLES, TOKENS) if own[0].phase is not None}
    window = _window(entries, [(start_ns, end_ns)], {**counts, "steps": float(len(steps) - dropped)})
    return {"steps_dropped": dropped, **_figures(window, basis)}


def _figures(window: _Window, basis: CarbonBasis | Unknown) -> dict[str, object]:
    figures = {"duration_s": window.seconds, **_energy(window, basis)}
    if window.resolution_s is not None:
        figures["resolution_s"] = window.resolution_s
    for name, unit in ((SAMPLES, "sample"), (TOKENS, "token"), ("steps", "step")):
        if name in window.counts:
            figures |= _counted(window, name, unit)
    return figures


def _energy(window: _Window, basis: CarbonBasis | Unknown) -> dict[str, object]:
    energy = window.energy
    if isinstance(energy, Unknown):
        return dict.fromkeys(("energy_kwh", "energy_method", "energy_quality", "co2e_g", "power_mean_w"), energy)
    watts = mean_power_w(energy.energy_kwh, window.seconds)
    return {
        "energy_kwh": energy.energy_kwh,
        "energy_method": energy.method.value,
        "energy_quality": sorted(flag.value for flag in energy.quality),
        "co2e_g": _grams(energy, window.entries, basis),
        "power_mean_w": known(watts, "it took no time"),
    }


def _counted(window: _Window, name: str, unit: str) -> dict[str, object]:
    """What was counted, and energy and time of each."""
    count = window.counts[name]
    keys = (name, f"joules_per_{unit}", f"{name}_per_second")
    if not count:
        return dict.fromkeys(keys, Unknown(f"no {name} were counted"))
    if not is_count(count):
        return dict.fromkeys(keys, Unknown(f"what was logged as {name} is no count"))
    energy = window.energy
    per_second = count / window.seconds if window.seconds else None
    each = energy if isinstance(energy, Unknown) else energy.energy_j / count
    return dict(zip(keys, (int(count), each, known(per_second, "it took no time")), strict=True))


def _grams(energy: EnergySum, entries: Sequence[EnergyEntry], basis: CarbonBasis | Unknown) -> object:
    return basis if isinstance(basis, Unknown) else basis.grams(energy.energy_kwh, entries)


def _window(
    entries: Sequence[EnergyEntry], spans: Sequence[tuple[int, int]], counts: Mapping[str, float | None]
) -> _Window:
    """Some time of the last attempt, its entries cut at the edges."""
    inside = within(entries, spans)
    edges = [edge for span in spans for edge in span]
    cut_ns = [
        entry.end_ns - entry.start_ns for entry in entries if any(entry.start_ns < e < entry.end_ns for e in edges)
    ]
    return _Window(
        seconds=sum(end - start for start, end in spans) / NS_PER_S,
        energy=sum_of(inside) or Unknown("the energy log has nothing of that time"),
        entries=inside,
        counts=counts,
        resolution_s=max(cut_ns, default=0) / NS_PER_S,
    )


def _last_entries(evidence: Evidence) -> tuple[EnergyEntry, ...]:
    last = evidence.last
    return tuple(entry for entry in evidence.entries if last is not None and entry.attempt == last.number)


def _disjoint(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those of several ranks that overlap joined."""
    joined: list[tuple[int, int]] = []
    for start_ns, end_ns in sorted(spans):
        if joined and start_ns <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_ns))
        else:
            joined.append((start_ns, end_ns))
    return joined


def parity_inferences(training_kwh: float, inference_kwh: float) -> float | None:
    """After how many inferences they have used as much as training did (arXiv 2311.16863, table 5).

    ``None`` where an inference uses nothing.
    """
    return training_kwh / inference_kwh if inference_kwh > 0 else None


def parity_of(evidence: Evidence) -> float | Unknown:
    """The same for a fine-tuned model: by the inferences it measured, else by the samples of its evaluation."""
    spec = evidence.job.spec
    if spec.kind != "finetune":
        return Unknown("nothing was trained")
    phase, name = (Phase.EVALUATE, SAMPLES) if spec.measured_inference is None else (Phase.INFERENCE, INFERENCES)
    training, answering = evidence.energy_of(Phase.TRAIN), evidence.last_energy_of(phase)
    for energy in (training, answering):
        if isinstance(energy, Unknown):
            return energy
    count = total_of(evidence.log.samples, name, phase)
    if not count or not is_count(count) or isinstance(training, Unknown) or isinstance(answering, Unknown):
        return Unknown(f"{evidence.last_name} counted no {name} in the {phase} phase")
    found = parity_inferences(training.energy_kwh, answering.energy_kwh / count)
    return Unknown(f"the {phase} phase used no energy") if found is None else found
