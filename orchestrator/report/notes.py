"""How the figures were made, from what, and what is not known. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.accounting.row import FIELDS, ReportRow
from orchestrator.compare.table import RESAMPLES
from orchestrator.report.figures import format_number
from orchestrator.report.headline import count
from orchestrator.report.view import Column, Entry, Explanation, Table
from workers.contract import Method

_METHODS: Mapping[str, str] = {
    Method.COUNTER.value: "difference of the device's hardware energy counter",
    Method.INTEGRATED.value: "power samples of the device, integrated over time",
    Method.MODELLED.value: "rated power × utilisation, or watts the manifest assumes; not a measurement",
    Method.REPLAYED.value: "read from a recording of a device",
    Method.SIMULATED.value: "made by a simulated device; not a measurement",
}
_NO_REASON = "no reason was recorded"
_NAMED_AT_MOST = 6
"""Job ids written out in one entry; reasons.json has them all."""


_FORMULAS = (
    Explanation(
        term="Differ by",
        formula="100 × (Prometheus − energy log) / energy log",
        text="GPU energy only. Prometheus' samples of the counter are the witness; the energy log is what is booked.",
    ),
    Explanation(
        term="CO₂e",
        formula="Σ over hours of energy × PUE × carbon intensity",
        text="Operational and location-based, without offsets. PUE and intensities are listed below; an intensity is"
        " the mean over the hours the job drew in, weighted by energy, or the region's yearly figure.",
    ),
    Explanation(
        term="Embodied carbon",
        formula="Σ over GPUs of kg made × time reserved / lifetime × share",
        text="Of making the hardware, apart from CO₂e. What each figure counts, and whose it is, is listed below; of"
        " one board they differ tenfold by that.",
    ),
    Explanation(
        term="Gain",
        formula="100 × (score − base) / |base|",
        text="Against the same model before training, with the sign turned where a lower score is better."
        " In points, where the manifest says cegi_gain: points.",
    ),
    Explanation(
        term="CEGI",
        formula="gCO₂e / (gain in % × trainable parameters in millions)",
        text="Lower is better. It counts the carbon of the train phase, or of all phases where the manifest says"
        " cegi_scope: all. Without a gain there is none.",
    ),
    Explanation(
        term="Interval of CEGI",
        formula="interval over jobs × least and most of what its parts may be",
        text="Where a second meter or the hours' intensities are known, it stands below CEGI. The parts are how far the"
        " meters disagree (energy log, Prometheus, power readings beside the counter) and the range of the carbon"
        " intensity over the hours. A part that is not known adds nothing, and details.json"
        " says so.",
    ),
    Explanation(
        term="CO₂e per % gained",
        formula="gCO₂e / gain in %",
        text="The same carbon as CEGI, not divided by the trainable parameters, which would flatter full fine-tuning.",
    ),
    Explanation(
        term="Mean ± deviation",
        text="Over the jobs of a cell, which differ in their seed; the deviation is the sample's (n − 1). Below it,"
        f" the 95 % interval of the mean by percentile bootstrap ({format_number(RESAMPLES)} resamples); with two or"
        " three jobs it is just their range. With one job nothing is known of the spread: ± –. Bold is the best mean"
        " of a column; where intervals overlap, that may be chance.",
    ),
)


def explanations(rows: Sequence[ReportRow]) -> list[Explanation]:
    """The formulas, and the methods this report's energy was obtained by."""
    used = {row.energy_method for row in rows}
    methods = "; ".join(f"{name}: {meaning}" for name, meaning in _METHODS.items() if name in used)
    energy = Explanation(
        term="Energy",
        text="Sum of the energy log's entries booked to the job, all devices and attempts, failed attempts included,"
        " before PUE. Of a host's CPU and DRAM, where they are metered, a job has the part that its processor time was"
        " of the host's (flagged shared); where they are not, what its manifest assumes, if it does."
        " A sum's method is its weakest part's."
        + (f" Here, {methods}." if methods else " No job of this report has any."),
    )
    return [energy, *_FORMULAS]


def unknown_table(rows: Sequence[ReportRow]) -> Table | None:
    """The fields some job lacks, by reason and jobs; ``None`` when nothing is missing."""
    missing: dict[tuple[str, str], list[str]] = {}
    for name in FIELDS:
        for row in rows:
            if name != "cegi_reason" and getattr(row, name) is None:
                missing.setdefault((_reason(row, name), name), []).append(row.job_id)
    fields: dict[tuple[str, str], list[str]] = {}
    for (reason, name), jobs in missing.items():
        fields.setdefault((reason, _named(jobs, len(rows))), []).append(name)
    if not fields:
        return None
    return Table(
        ident="unknown",
        caption="Fields without a value",
        about="Unknown is shown as a dash, never as zero. reasons.json has the same per job.",
        columns=[Column(title=title, numeric=False) for title in ("Reason", "Fields", "Jobs")],
        rows=[
            [Entry(text=reason), Entry(text=", ".join(names)), Entry(text=jobs)]
            for (reason, jobs), names in fields.items()
        ],
    )


def _reason(row: ReportRow, name: str) -> str:
    given = row.reasons.get(name) or (row.cegi_reason if name == "cegi_g" else None)
    return given or _NO_REASON


def _named(jobs: Sequence[str], of: int) -> str:
    if len(jobs) == of and of > 1:
        return f"all {of}"
    more = len(jobs) - _NAMED_AT_MOST
    return ", ".join(jobs[:_NAMED_AT_MOST]) + (f" and {count(more, 'other')}" if more > 0 else "")
