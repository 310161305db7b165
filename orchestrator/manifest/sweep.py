"""What is wrong with the axes of a sweep, and which of their values can be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.manifest.document import shortened
from orchestrator.manifest.fields import Finding, field_findings, given, overlaps, unsupported
from orchestrator.manifest.model import MAX_JOBS, NEEDED, NOT_SWEPT, SWEEPABLE, UNSUPPORTED_KEYS, nested
from workers.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The axes of a sweep as far as they can be used.

    Attributes:
        named: every path the sweep names and a job has, usable or not.
        values: path to ``(position in the list, value)`` of the values that are fine in themselves.
        findings: what is wrong with the rest.
    """

    named: frozenset[str] = frozenset()
    values: Mapping[str, tuple[tuple[int, object], ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def read_axes(sweep: object) -> Axes:
    """Look at what stands under ``sweep``; every problem's path begins with ``sweep``."""
    if not isinstance(sweep, Mapping):
        return Axes(
            findings=(Finding(("sweep",), f"sweep: should map dotted paths to lists of values {given(sweep)}"),)
        )
    findings: list[Finding] = []
    values: dict[str, tuple[tuple[int, object], ...]] = {}
    for path, listed in sweep.items():
        problem = _path_problem(path) or _list_problem(path, listed)
        if problem is not None:
            findings.append(Finding(("sweep", path), problem))
            continue
        in_place = [*_value_findings(path, listed), *_nulls(path, listed), *_repeats(path, listed)]
        findings += in_place
        bad = {finding.path[2] for finding in in_place}
        values[path] = tuple((index, value) for index, value in enumerate(listed) if index not in bad)
    named = frozenset(str(path) for path in sweep if path in SWEEPABLE)
    return Axes(named=named, values=values, findings=tuple(findings))


def size_problem(sweep: Mapping[str, list[object]], seeds: int) -> str | None:
    """Why the product is too large; ``None`` when it is not."""
    jobs = math.prod(len(values) for values in sweep.values()) * seeds
    if jobs <= MAX_JOBS:
        return None
    return f"the sweep and the seeds make {jobs:,} jobs; at most {MAX_JOBS:,} are taken, so shorten a list"


def _path_problem(path: str) -> str | None:
    if path in SWEEPABLE:
        return None
    shown = shortened(path)
    if path in NOT_SWEPT:
        return f"sweep: {shown} cannot be swept; {NOT_SWEPT[path]}"
    if path in UNSUPPORTED_KEYS or path.partition(".")[0] in UNSUPPORTED_KEYS:
        return f"sweep: {unsupported(shown)}"
    below = [known for known in SWEEPABLE if known.startswith(f"{path}.")]
    if below:
        return f"sweep: {shown} has keys of its own; sweep one of {', '.join(below)}"
    return f"sweep: {unknown_name('key', shown, SWEEPABLE)}"


def _list_problem(path: str, listed: object) -> str | None:
    if isinstance(listed, list) and listed:
        return None
    return f"sweep.{path}: should be a list of at least one value {given(listed)}"


def _value_findings(path: str, listed: list[object]) -> list[Finding]:
    """Each value as if it stood in its place; its path is then that of the value in the list."""
    keys = tuple(path.split("."))
    return [
        Finding(("sweep", path, index, *finding.path[len(keys) :]), finding.text)
        for index, value in enumerate(listed)
        for finding in field_findings(nested(path, value))
        if overlaps(finding.path, keys)
    ]


def _nulls(path: str, listed: list[object]) -> list[Finding]:
    """Outside a sweep, null stands for a task or model that the sweep gives; in it, for none at all."""
    if path not in NEEDED:
        return []
    told = f"{path}: a job needs one {given(None)}"
    return [Finding(("sweep", path, index), told) for index, value in enumerate(listed) if value is None]


def _repeats(path: str, listed: list[object]) -> list[Finding]:
    """Values that would make the same job twice; 1 and 1.0 are the same."""
    seen: set[str] = set()
    findings: list[Finding] = []
    for index, value in enumerate(listed):
        whole = isinstance(value, float) and value.is_integer()
        form = json.dumps(int(value) if whole else value, sort_keys=True)  # type: ignore[call-overload]
        if form in seen:
            findings.append(Finding(("sweep", path, index), f"sweep.{path}: {form} is given twice; remove one"))
        seen.add(form)
    return findings
