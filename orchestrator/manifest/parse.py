"""A manifest's text to a ``Manifest``, or every one of its problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.manifest.deadlines import deadline_findings
from orchestrator.manifest.document import Document, printable, read_document
from orchestrator.manifest.fields import Finding, field_findings, given, is_later, overlaps
from orchestrator.manifest.files import file_findings
from orchestrator.manifest.model import MAX_PROBLEMS, NEEDED, Manifest
from orchestrator.manifest.profiles import absent, name_under, profile_findings, profile_names, renamed, under
from orchestrator.manifest.sweep import Axes, read_axes, size_problem
from orchestrator.manifest.together import rule_findings
from workers.errors import ManifestError


def parse_manifest(
    text: str, *, source: str, profile: str | None = None, folder: Path | None = None, now_ns: int | None = None
) -> Manifest:
    """Read and check a manifest; ``source`` names it in messages.

    The files it names are looked for in ``folder`` and checked too; where none is given, they are left alone. Deadlines
    must be later than ``now_ns``; where it is ``None``, any time will do. Under a ``profile`` the manifest is what the
    profile makes of it, its name included; all that it says otherwise is checked as well.

    Raises:
        ManifestError: all that is wrong with it, each problem with its 1-based line.
    """
    document = read_document(text, source=source)
    checked = Checked.of(document, path=Path(source), profile=profile, folder=folder, now_ns=now_ns)
    if checked.problems:
        raise ManifestError(source, checked.problems)
    return manifests_of([checked], profile)[0]


def manifests_of(checked: Sequence[Checked], profile: str | None) -> tuple[Manifest, ...]:
    """The manifests of a submission without problems; under a profile they need each other by their names under it."""
    names = {str(one.name): str(one.name) for one in checked}
    if profile is not None:
        names = {name: name_under(name, profile) for name in names}
    return tuple(Manifest.model_validate(renamed(one.data, names)) for one in checked)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A document under the profile that was chosen, where it is from, and what is wrong with it by itself.

    ``problems`` are ``(line, sentence)``: of the document as written, and under each of its profiles.
    """

    path: Path
    document: Document
    problems: tuple[tuple[int, str], ...]

    @classmethod
    def of(
        cls, document: Document, *, path: Path, profile: str | None, folder: Path | None, now_ns: int | None
    ) -> Checked:
        """Look at all that a document says; see ``parse_manifest``. Time passes for what was chosen alone."""
        if not isinstance(document.data, Mapping):
            told = f"a manifest maps keys to values, at least version, name, task and model {given(document.data)}"
            return cls(path=path, document=document, problems=((document.first_line, told),))
        written = _located(document, _findings(document.data, folder, now_ns if profile is None else None))
        if is_later(document.data.get("version")):
            return cls(path=path, document=document, problems=_listed({*document.problems, *written}))
        problems = {*document.problems, *written, *_located(document, profile_findings(document.data))}
        chosen = document
        for name in profile_names(document.data):
            variant = under(document, name)
            chosen = variant if name == profile else chosen
            found = _located(variant, _findings(variant.body, folder, now_ns if name == profile else None)) - written
            line_of_it = document.line_of(("profiles", name))
            problems |= {(line or line_of_it, f"profile {printable(name)}: {told}") for line, told in found}
        missing = absent(document.data, profile) if profile is not None else None
        if missing is not None:
            problems.add((document.line_of(("profiles",)), missing))
        return cls(path=path, document=chosen, problems=_listed(problems))

    @property
    def data(self) -> Mapping[str, object]:
        """What it says, right or wrong; nothing where it is no mapping."""
        return self.document.body

    @property
    def name(self) -> str | None:
        """The name it gives itself, right or wrong."""
        name = self.data.get("name")
        return name if isinstance(name, str) else None


def _findings(data: Mapping[str, object], folder: Path | None, now_ns: int | None) -> list[Finding]:
    if is_later(data.get("version")):
        return [finding for finding in field_findings({"version": data["version"]}) if finding.path == ("version",)]
    body = {key: value for key, value in data.items() if key not in ("sweep", "profiles")}
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


def _located(document: Document, findings: Iterable[Finding]) -> set[tuple[int, str]]:
    """Findings by their lines, without those that follow from what could not be read."""
    return {
        (document.line_of(path), text)
        for path, text in findings
        if not any(overlaps(path, unread) for unread in document.unread)
    }


def _listed(problems: set[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """Problems in the order of their lines, cut where nobody reads on."""
    listed = sorted(problems)
    left_out = len(listed) - MAX_PROBLEMS
    if left_out > 0:
        return (*listed[:MAX_PROBLEMS], (0, f"and {left_out:,} problems more, which are not listed"))
    return tuple(listed)
