"""The report as files: a page for people, JSON and Parquet for programs, and the reasons for what is unknown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.accounting.details import Details
from orchestrator.accounting.row import ReportRow
from workers.errors import InputError
from workers.parquet import write_rows


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where the report was written."""

    html: Path
    json: Path
    parquet: Path
    reasons: Path
    details: Path


def write_report(
    folder: Path,
    rows: Sequence[ReportRow],
    *,
    title: str,
    generated_ns: int,
    witness: Mapping[str, float | None] | None = None,
    details: Mapping[str, Details] | None = None,
    notes: Sequence[str] = (),
) -> ReportFiles:
    """Write the report of ``rows`` into ``folder``, replacing an earlier one; each file appears whole or not at all.

    Args:
        folder: made if need be.
        rows: at least one.
        title: the page's heading.
        generated_ns: when the figures were computed, ns since the epoch.
        witness: GPU energy by Prometheus of each job, kWh; ``None`` when no server was asked.
        details: job id to what is known of it beyond its row.
        notes: sentences for the page about more than one job.

    Raises:
        InputError: there are no rows, or the packages that draw the page are not installed.
    """
    if not rows:
        raise InputError("there is no job to report. Name jobs of this ledger, or run one first.")
    beyond = details or {}
    page = _page(rows, title=title, generated_ns=generated_ns, witness=witness, details=beyond, notes=notes)
    contract = [row.as_dict() for row in rows]
    reasons = {row.job_id: dict(row.reasons) for row in rows}
    texts = {"report.html": page, "report.json": _json(contract), "reasons.json": _json(reasons)}
    texts["details.json"] = _json({job_id: found.as_dict() for job_id, found in beyond.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "report.parquet", contract)
    for name, text in texts.items():
        _write(folder / name, text)
    return ReportFiles(
        html=folder / "report.html",
        json=folder / "report.json",
        parquet=folder / "report.parquet",
        reasons=folder / "reasons.json",
        details=folder / "details.json",
    )


def _page(
    rows: Sequence[ReportRow],
    *,
    title: str,
    generated_ns: int,
    witness: Mapping[str, float | None] | None,
    details: Mapping[str, Details],
    notes: Sequence[str],
) -> str:
    try:
        # Here and not above: the page needs matplotlib and jinja2, which take a second and an extra to load.
        from orchestrator.report.page import build_page, render  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the report page needs {error.name}, which is not installed. Install the extra: wattledger[report]."
        ) from error
    page = build_page(rows, title=title, generated_ns=generated_ns, witness=witness, details=details, notes=notes)
    return render(page)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Write under a hidden name in the same folder, then rename."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        hidden.write_text(text, encoding="utf-8")
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
