"""A manifest's text to a ``Manifest``, or every one of its problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.manifest.deadlines import deadline_findings
from orchestrator.manifest.document import Document, read_document
from orchestrator.manifest.fields import Finding, field_findings, given, is_later, overlaps
from orchestrator.manifest.files import file_findings
from orchestrator.manifest.model import MAX_PROBLEMS, NEEDED, Manifest
from orchestrator.manifest.sweep import Axes, read_axes, size_problem
from orchestrator.manifest.together import rule_findings
from workers.errors import ManifestError


def parse_manifest(text: str, *, source: str, folder: Path | None = None, now_ns: int | None = None) -> Manifest:
    """Read and check a manifest; ``source`` names it in messages.

    The files it names are looked for in ``folder`` and checked too; where none is given, they are left alone. Deadlines
    must be later than ``now_ns``; where it is ``None``, any time will do.

    Raises:
        ManifestError: all that is wrong with it, each problem with its 1-based line.
    """
    checked = Checked.of(read_document(text, source=source), path=Path(source), folder=folder, now_ns=now_ns)
    if checked.problems:
        raise ManifestError(source, checked.problems)
    return Manifest.model_validate(checked.document.data)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A document, where it is from, and what is wrong with it by itself, as ``(line, sentence)``."""

    path: Path
    document: Document
    problems: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, document: Document, *, path: Path, folder: Path | None, now_ns: int | None) -> Checked:
        """Look at all that a document says; see ``parse_manifest``."""
        if not isinstance(document.data, Mapping):
            told = f"a manifest maps keys to values, at least version, name, task and model {given(document.data)}"
            return cls(path=path, document=document, problems=((document.first_line, told),))
        findings = [
            finding
            for finding in _findings(document.data, folder, now_ns)
            if not any(overlaps(finding.path, unread) for unread in document.unread)
        ]
        return cls(path=path, document=document, problems=tuple(_listed(document, findings)))

    @property
    def data(self) -> Mapping[str, object]:
        """What it says, right or wrong; nothing where it is no mapping."""
        return self.document.data if isinstance(self.document.data, Mapping) else {}

    @property
    def name(self) -> str | None:
        """The name it gives itself, right or wrong."""
        name = self.data.get("name")
        return name if isinstance(name, str) else None


def _findings(data: Mapping[str, object], folder: Path | None, now_ns: int | None) -> list[Finding]:
    if is_later(data.get("version")):
        return [finding for finding in field_findings({"version": data["version"]}) if finding.path == ("version",)]
    body = {key: value for key, value in data.items() if key != "sweep"}
    axes = read_axes(data["sweep"]) if "sweep" in data else Axes()
    findings = [*field_findings(body), *axes.findings]
    findings += [
        Finding((key,), f"{key} is missing") for key in NEEDED if body.get(key) is None and key not in axes.named
    ]
    sweep, seeds = data.get("sweep", {}), body.get("seeds", [0])
    if isinstance(sweep, Mapping) and isinstance(seeds, list):
        lists = {path: values for path, values in sweep.items() if isinstance(values, list)}
        too_large = size_problem(lists, len(seeds))
        if too_large is not None:
            return [*findings, Finding(("sweep",) if lists else ("seeds",), too_large)]
    files = file_findings(data, folder) if folder is not None else ()
    return [*findings, *rule_findings(body, axes, findings), *files, *deadline_findings(data, now_ns)]


def _listed(document: Document, findings: list[Finding]) -> list[tuple[int, str]]:
    """Problems in the order of their lines, cut where nobody reads on."""
    listed = sorted({*document.problems, *((document.line_of(path), text) for path, text in findings)})
    left_out = len(listed) - MAX_PROBLEMS
    if left_out > 0:
        return [*listed[:MAX_PROBLEMS], (0, f"and {left_out:,} problems more, which are not listed")]
    return listed
