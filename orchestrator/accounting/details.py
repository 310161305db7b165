"""What is known of a job beyond its report row: phases, units, the join, intervals. Each null has its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.accounting.assumed import SOURCES
from orchestrator.accounting.budgets import exceeded, job_budget
from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.clocks import Clocks
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.join import Joined
from orchestrator.accounting.outcomes import NOTHING_TRAINED
from orchestrator.accounting.phase_figures import generation_figures, parity_of, phase_figures, repeat_figures
from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.uncertainty import (
    Range,
    intensity_part,
    intervals,
    metering,
    power_disagreement_percent,
)
from orchestrator.accounting.unknown import Unknown, known
from workers.contract import Phase
from workers.units import NS_PER_S, mj_to_kwh

YEARLY = "a yearly average has no range; the hours of it are not known"


@dataclass(frozen=True, kw_only=True)
class Details:
    """Figures of one job that the row has no field for.

    Attributes:
        figures: by section; ``None`` is unknown.
        reasons: dotted path of each ``None`` to why it is.
        uncertainty: what CO2e and CEGI may be, as factors of the figures.
        notes: sentences a reader should see: lost logs, clocks that are off, budgets exceeded.
    """

    figures: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    uncertainty: Range = field(default_factory=lambda: Range(parts=()))
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**self.figures, "notes": list(self.notes), "reasons": dict(self.reasons)}


def details_of(joined: Joined, basis: CarbonBasis | Unknown, row: ReportRow, clocks: Clocks) -> Details:
    """All that is known of a job beyond its row."""
    evidence = joined.evidence
    g_per_kwh = row.carbon_intensity_g_per_kwh
    by_hour = () if isinstance(basis, Unknown) else basis.by_hour(evidence.entries)
    range_ = Range(parts=(metering(evidence, joined.witness), intensity_part(g_per_kwh, by_hour, reason=YEARLY)))
    spec = evidence.job.spec
    sections: dict[str, object] = {
        "user": known(evidence.job.user, "this ledger did not note who submitted it"),
        "team": known(spec.accounting.team, "its manifest names none (accounting.team)"),
        "project": known(spec.accounting.project, "its manifest names none (accounting.project)"),
        "run_id": evidence.job.run_id,
        "metering": _metering(joined, clocks),
        "phases": phase_figures(evidence, basis, joined.witness.curves),
        "generation": generation_figures(evidence, basis, joined.witness.curves),
        "repeats": repeat_figures(evidence, basis, joined.witness.curves),
        "load": _load(evidence, basis),
        "parity_inferences": parity_of(evidence),
        "gco2e_per_percent": _per_percent(row),
        "score_base_from": _base_from(evidence),
        "cegi_scope": spec.accounting.cegi_scope,
        "cegi_gain": spec.accounting.cegi_gain,
        "interval": intervals(row, range_),
        "budget": job_budget(spec.budget, row),
    }
    reasons: dict[str, str] = {}
    figures = {name: _plain(value, name, reasons) for name, value in sections.items()}
    unconfirmed = (
        f"the last joules of attempt {number} of {row.job_id} were not confirmed when it ended: {why.rstrip('.')}"
        for number, why in evidence.unconfirmed.items()
    )
    notes = (*joined.notes, *unconfirmed, *exceeded(row.job_id, spec.budget, row))
    return Details(figures=figures, reasons=reasons, uncertainty=range_, notes=notes)


def _metering(joined: Joined, clocks: Clocks) -> Mapping[str, object]:
    """Both figures of the GPUs, what no meter counted, and how far the clocks of the nodes were off."""
    evidence, witness = joined.evidence, joined.witness
    logged = sum(window.energy_mj for window in evidence.logged_windows)
    started_ns = min((entry.start_ns for entry in evidence.entries), default=0)
    return {
        "energy_log_gpu_kwh": mj_to_kwh(logged) if logged else Unknown("the energy log has no entries of its GPUs"),
        "prometheus_gpu_kwh": known(witness.energy_kwh, witness.reason),
        "prometheus_disagreement_percent": known(witness.disagreement_percent, witness.reason),
        "prometheus_quality": sorted(flag.value for flag in witness.quality),
        "power_disagreement_percent": known(
            power_disagreement_percent(evidence), "no counter of its GPUs has power readings beside it"
        ),
        "recovered_kwh": mj_to_kwh(sum(entry.energy_mj for entry in evidence.recovered)),
        "assumed_kwh": mj_to_kwh(sum(e.energy_mj for e in evidence.entries if e.device in SOURCES.values())),
        "clock_offset_s": {node: _seconds(clocks, node, started_ns) for node in sorted(set(evidence.node_of.values()))},
    }


def _seconds(clocks: Clocks, node: str, time_ns: int) -> float | Unknown:
    found = clocks.of(node, time_ns)
    return Unknown("its clock was not measured") if found is None else found.offset_ns / NS_PER_S


def _load(evidence: Evidence, basis: CarbonBasis | Unknown) -> Mapping[str, object]:
    """The model's load apart from what it was loaded for."""
    energy = evidence.energy_of(Phase.LOAD)
    if isinstance(energy, Unknown):
        return {"energy_wh": energy, "co2e_g": energy}
    grams = basis if isinstance(basis, Unknown) else basis.grams(energy.energy_kwh, evidence.entries_of(Phase.LOAD))
    return {"energy_wh": 1000 * energy.energy_kwh, "co2e_g": grams}


def _base_from(evidence: Evidence) -> str | Unknown:
    """Who scored the base model."""
    if evidence.job.spec.kind != "finetune":
        return Unknown(NOTHING_TRAINED)
    return "the job itself" if evidence.baseline is None else evidence.baseline.name


def _per_percent(row: ReportRow) -> float | Unknown:
    """CEGI without its division by parameters, which flatters full fine-tuning."""
    if row.cegi_g is None or row.trainable_parameters is None:
        return Unknown(row.reasons.get("cegi_g", "cegi_g is not known"))
    return row.cegi_g * row.trainable_parameters / 1e6


def _plain(value: object, path: str, reasons: dict[str, str]) -> object:
    """A value as JSON has it; what is unknown becomes ``None``, and its reason is noted."""
    if isinstance(value, Unknown):
        reasons[path] = value.reason
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, f"{path}.{name}", reasons) for name, inner in value.items()}
    return value
