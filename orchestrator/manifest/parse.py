"""A manifest's text to a ``Manifest``, or every one of its problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.manifest.document import MAX_BYTES, Document, read_document
from orchestrator.manifest.fields import Finding, field_findings, given, overlaps
from orchestrator.manifest.files import file_findings
from orchestrator.manifest.model import NEEDED, Manifest
from orchestrator.manifest.sweep import Axes, read_axes, size_problem
from orchestrator.manifest.together import rule_findings
from workers.errors import InputError, ManifestError

MAX_PROBLEMS = 100
"""Problems listed of one manifest; nobody reads more, and the file is then not a manifest at all."""


def load_manifest(path: Path) -> Manifest:
    """Read and check the manifest at ``path``, a UTF-8 file.

    Raises:
        InputError: the file is missing, a folder, not readable, or not UTF-8.
        ManifestError: what it says cannot be used.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Give the path of a manifest, such as quickstart.yaml.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder. Give the path of one manifest in it.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its path and permissions.") from error
    try:
        # A file cut off inside a letter is too long before it is anything else.
        text = raw.decode("utf-8-sig", errors="strict" if len(raw) <= MAX_BYTES else "replace")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not UTF-8 text (line {line}). Save it as UTF-8.") from error
    return parse_manifest(text, source=str(path), folder=path.parent)


def parse_manifest(text: str, *, source: str, folder: Path | None = None) -> Manifest:
    """Read and check a manifest; ``source`` names it in messages.

    The files it names are looked for in ``folder`` and checked too; where none is given, they are left alone.

    Raises:
        ManifestError: all that is wrong with it, each problem with its 1-based line.
    """
    document = read_document(text, source=source)
    if not isinstance(document.data, Mapping):
        told = f"a manifest maps keys to values, at least version, name, task and model {given(document.data)}"
        raise ManifestError(source, [(1, told)])
    findings = [
        finding
        for finding in _findings(document.data, folder)
        if not any(overlaps(finding.path, unread) for unread in document.unread)
    ]
    if findings or document.problems:
        raise ManifestError(source, _listed(document, findings))
    return Manifest.model_validate(document.data)


def _findings(data: Mapping[str, object], folder: Path | None) -> list[Finding]:
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
    return [*findings, *rule_findings(body, axes, findings), *files]


def _listed(document: Document, findings: list[Finding]) -> list[tuple[int, str]]:
    """Problems in the order of their lines, cut where nobody reads on."""
    listed = sorted({*document.problems, *((document.line_of(path), text) for path, text in findings)})
    left_out = len(listed) - MAX_PROBLEMS
    if left_out > 0:
        return [*listed[:MAX_PROBLEMS], (0, f"and {left_out:,} problems more, which are not listed")]
    return listed
