"""Report rows: one per job, every field either known or with the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.accounting.carbon import CarbonBasis
from orchestrator.accounting.clocks import Clocks
from orchestrator.accounting.costs import carbon_figures, energy_figures
from orchestrator.accounting.details import Details, details_of
from orchestrator.accounting.evidence import NOT_RUN, Evidence, gather
from orchestrator.accounting.join import join
from orchestrator.accounting.many import MANY_JOBS
from orchestrator.accounting.outcomes import outcome_figures
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rates import rate_figures
from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.slices import Slice, slices_of
from orchestrator.accounting.unknown import Figures, Unknown, row_of
from orchestrator.accounting.witness import Witness
from orchestrator.carbon.sources import HourlySources
from orchestrator.lifecycle import JobRecord
from workers.contract import Adapter
from workers.home import Home
from workers.training.models import MODELS


@dataclass(frozen=True, kw_only=True)
class Account:
    """A job's row, and what goes with it.

    Attributes:
        witness: what Prometheus says of the same job.
        details: figures the row has no field for.
        slices: its energy by node and day.
    """

    row: ReportRow
    witness: Witness
    details: Details = field(default_factory=Details)
    slices: tuple[Slice, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences a reader should see."""
        return self.details.notes


def build_rows(
    home: Home,
    jobs: Sequence[JobRecord],
    *,
    prometheus: PrometheusClient | None = None,
    sources: HourlySources | None = None,
) -> tuple[ReportRow, ...]:
    """One row per job, in the order given. Missing or torn logs, or no server, make figures unknown, not errors."""
    return tuple(account.row for account in build_accounts(home, jobs, prometheus=prometheus, sources=sources))


def build_accounts(
    home: Home,
    jobs: Sequence[JobRecord],
    *,
    prometheus: PrometheusClient | None = None,
    sources: HourlySources | None = None,
    many: int = MANY_JOBS,
) -> tuple[Account, ...]:
    """The rows, each with its witness, in the order given; without ``sources`` every hour has its region's year.

    From ``many`` jobs on, entries are joined within hours: the same rows, and no figures of parts of phases.
    """
    clocks = Clocks(home)
    return tuple(_account(home, evidence, prometheus, sources, clocks) for evidence in gather(home, jobs, many=many))


def _account(
    home: Home,
    gathered: Evidence,
    prometheus: PrometheusClient | None,
    sources: HourlySources | None,
    clocks: Clocks,
) -> Account:
    joined = join(home, gathered, prometheus, clocks)
    evidence = joined.evidence
    basis = CarbonBasis.of(evidence, sources)
    row = row_of(
        _identity(evidence),
        energy_figures(evidence, joined.witness),
        carbon_figures(evidence, basis),
        outcome_figures(evidence, basis),
        rate_figures(evidence, basis),
    )
    return Account(
        row=row,
        witness=joined.witness,
        details=details_of(joined, basis, row, clocks),
        slices=slices_of(evidence, basis),
    )


def _identity(evidence: Evidence) -> Figures:
    job, spec = evidence.job, evidence.job.spec
    model = MODELS.get(spec.model)
    return {
        "job_id": job.job_id,
        "name": spec.name,
        "kind": spec.kind,
        "task": spec.task,
        "model": spec.model,
        "architecture": Unknown(f"model {spec.model} is not in the registry") if model is None else model.architecture,
        "accelerator": _accelerator(evidence),
        "gpu_count": spec.resources.gpus * spec.resources.nodes,
        "quantization": spec.quantization,
        "adapter": adapter_label(spec.adapter),
        "seed": spec.seed,
        "state": job.state.value,
        "attempts": len(job.attempts),
    }


def adapter_label(adapter: Adapter) -> str:
    """How a table shows an adapter: ``none``, ``full``, or ``lora-r8``."""
    return f"lora-r{adapter.rank}" if adapter.method == "lora" else adapter.method


def _accelerator(evidence: Evidence) -> str | Unknown:
    """As the placement says, else as the meter of its only GPU type does."""
    if evidence.last is None:
        return Unknown(NOT_RUN)
    metered = {e.model for e in evidence.entries if e.kind == "gpu" and e.attempt == evidence.last.number}
    if evidence.last.accelerator is None and len(metered) == 1:
        return metered.pop()
    return evidence.last.accelerator or Unknown(f"{evidence.last_name} held no GPU whose type is known")
