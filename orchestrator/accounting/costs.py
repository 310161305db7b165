"""Fields of a row: energy, and the carbon it stands for. Pure."""

from __future__ import annotations

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.embodied import embodied_in
from orchestrator.accounting.energy import held_s, sum_of, windows
from orchestrator.accounting.evidence import NOT_RUN, Evidence
from orchestrator.accounting.unknown import Figures, Unknown, known
from orchestrator.accounting.witness import Witness
from orchestrator.carbon.intensity import facility_pue
from workers.contract import Quality
from workers.units import mean_power_w

NOT_COMPUTED = "not computed by this version"
NO_METER = {
    "gpu": "no GPU of this job was metered",
    "cpu": "no CPU meter on this node: its energy is not counted",
    "dram": "no DRAM meter on this node: its energy is not counted",
}
"""Why a kind of device is null, where the node did not say more."""


def energy_figures(evidence: Evidence, witness: Witness) -> Figures:
    """Energy, how it was obtained, and how far the witness disagrees."""
    total = evidence.total()
    return {
        "energy_kwh": total if isinstance(total, Unknown) else total.energy_kwh,
        **{f"energy_{kind}_kwh": _of_kind(evidence, kind) for kind in NO_METER},
        "energy_by_phase_kwh": _by_phase(evidence),
        "energy_wasted_kwh": _wasted(evidence),
        "energy_method": total if isinstance(total, Unknown) else total.method.value,
        "energy_quality": total if isinstance(total, Unknown) else _flags(evidence, total.quality),
        "energy_disagreement_percent": _disagreement(evidence, witness),
        "power_mean_w": _mean_power(evidence),
        "predicted_energy_kwh": Unknown(NOT_COMPUTED),
    }


def carbon_figures(evidence: Evidence, basis: CarbonBasis | Unknown) -> Figures:
    """Carbon of all attempts, operational and embodied apart, and what each is computed from."""
    total, embodied = evidence.total(), embodied_in(evidence)
    figures: dict[str, object] = {
        "pue": facility_pue(evidence.job.spec.accounting.pue).value,
        "embodied_kg": embodied if isinstance(embodied, Unknown) else embodied.kg,
    }
    of_hardware = "" if isinstance(embodied, Unknown) else f"embodied: {embodied.provenance}"
    if isinstance(basis, Unknown):
        source = {"carbon_source": of_hardware or basis}
        return figures | source | dict.fromkeys(("carbon_intensity_g_per_kwh", "co2e_kg"), basis)
    return figures | {
        "carbon_intensity_g_per_kwh": basis.g_per_kwh(evidence.entries),
        "carbon_source": "; ".join(filter(None, (basis.source(evidence.entries), of_hardware))),
        "co2e_kg": total if isinstance(total, Unknown) else basis.kg(total.energy_kwh, evidence.entries),
    }


def _of_kind(evidence: Evidence, kind: str) -> float | Unknown:
    found = sum_of(entry for entry in evidence.entries if entry.kind == kind)
    if found is not None:
        return found.energy_kwh
    total = evidence.total()
    if isinstance(total, Unknown) and not evidence.entries:
        return total
    return Unknown(evidence.why_unmetered.get(kind, NO_METER[kind]))


def _by_phase(evidence: Evidence) -> dict[str, float] | Unknown:
    total = evidence.total()
    if isinstance(total, Unknown):
        return total
    found = {phase.value: part.energy_kwh for phase, part in evidence.phases.items()}
    return found or Unknown(f"no energy was booked to a phase of {evidence.last_name}")


def _wasted(evidence: Evidence) -> float | Unknown:
    """Energy of attempts that came to nothing: 0 only where there were attempts and each counts."""
    if not evidence.job.attempts:
        return Unknown(NOT_RUN)
    if missing := sorted(evidence.wasted & set(evidence.unmetered)):
        return Unknown(f"the energy log has no entries of wasted attempt {', '.join(map(str, missing))}")
    wasted = sum_of(entry for entry in evidence.entries if entry.attempt in evidence.wasted)
    return 0.0 if wasted is None else wasted.energy_kwh


def _flags(evidence: Evidence, quality: frozenset[Quality]) -> tuple[str, ...]:
    """The entries' flags; and ``gap`` where entries are known to be missing, or not known to be all there."""
    is_short = (
        evidence.damaged or evidence.incomplete or evidence.unmetered or evidence.partly_metered or evidence.unconfirmed
    )
    lacking = {Quality.GAP} if is_short else set()
    return tuple(sorted(flag.value for flag in quality | lacking))


def _disagreement(evidence: Evidence, witness: Witness) -> float | Unknown:
    if not evidence.job.attempts:
        return Unknown(NOT_RUN)
    return known(witness.disagreement_percent, witness.reason)


def _mean_power(evidence: Evidence) -> float | Unknown:
    total = evidence.total()
    if isinstance(total, Unknown):
        return total
    watts = mean_power_w(total.energy_kwh, held_s(windows(evidence.entries)))
    return Unknown("its devices were held for no time") if watts is None else watts
