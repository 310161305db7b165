"""What is wrong with single keys and values of a manifest, whatever else it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from orchestrator.carbon.intensity import intensity_of
from orchestrator.carbon.series_file import NAMES as INTENSITY_NAMES
from orchestrator.manifest.document import dotted, printable, shortened
from orchestrator.manifest.model import (
    ACCELERATOR_TYPES,
    NAME_PATTERN,
    UNSUPPORTED_KEYS,
    VERSION,
    Manifest,
    section_at,
)
from workers.contract import DEADLINE_PATTERN, INTENSITY_PATTERN
from workers.errors import UnknownNameError, unknown_name
from workers.section import KeyPath, Section, section_problems
from workers.tasks import TASKS
from workers.training.models import MODELS, is_pretrained


class Finding(NamedTuple):
    """One problem: where in the document, and the sentence for its author."""

    path: KeyPath
    text: str


def field_findings(body: Mapping[str, object]) -> list[Finding]:
    """Unknown and unsupported keys, wrong types, impossible values and unknown names of ``body``."""
    found = [*_section_findings(Manifest, body, ())]
    if "version" not in body:
        found.append(Finding(("version",), f"version is missing; write version: {VERSION}"))
    places = [finding.path for finding in found]
    # Pydantic looks no further at a mapping with a key that UTF-8 cannot hold; all unknown keys are found already.
    known = {key: value for key, value in body.items() if key in Manifest.model_fields}
    for path, sentence in section_problems(Manifest, known):
        if not any(overlaps(path, place) for place in places):
            found.append(Finding(path, f"{dotted(path)}{_joined(sentence)}"))
    return found


def overlaps(one: KeyPath, other: KeyPath) -> bool:
    """Whether one path is the other, or leads to or from it."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def given(value: object) -> str:
    """A value as a message shows it."""
    return f"(given {shortened(json.dumps(value, default=str), length=80)})"


def unsupported(what: str) -> str:
    """The sentence for a part of the format that this version cannot honour."""
    return f"{what} is not supported by this version of Wattledger; remove it"


def _joined(sentence: str) -> str:
    """Pydantic's sentence after its path, in the words of YAML."""
    words = sentence.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    return f" {words}" if words == "is missing" else f": {words}"


def _section_findings(section: type[Section], data: Mapping[str, object], at: KeyPath) -> Iterator[Finding]:
    for key, value in data.items():
        path = (*at, key)
        name = dotted(path)
        field = section.model_fields.get(key)
        inner = section_at(field) if field is not None else None
        if name in UNSUPPORTED_KEYS:
            yield Finding(path, unsupported(name))
        elif field is None:
            where = f"{dotted(at)}: " if at else ""
            yield Finding(path, where + unknown_name("key", shortened(key), section.model_fields))
        elif inner is not None and isinstance(value, Mapping):
            yield from _section_findings(inner, value, path)
        elif inner is not None:
            known = ", ".join(inner.model_fields)
            yield Finding(path, f"{name}: needs keys of its own, some of {known} {given(value)}")
        elif name in _VALUE_CHECKS:
            yield from (Finding((*path, *below), text) for below, text in _VALUE_CHECKS[name](value))


Found = Iterable[tuple[KeyPath, str]]
"""Paths below the value that was checked, and sentences."""


def _version(value: object) -> Found:
    if is_later(value):
        yield (), f"made for a later Wattledger (manifest version {value}); this one reads version {VERSION}"
    elif type(value) is not int or value != VERSION:
        yield (), f"version: this Wattledger reads version {VERSION}; write version: {VERSION} {given(value)}"


def is_later(version: object) -> bool:
    """Whether a manifest says that it is of a version yet to come, whose other keys may mean anything."""
    return type(version) is int and version > VERSION


def _name(value: object) -> Found:
    if isinstance(value, str) and not re.fullmatch(NAME_PATTERN, value):
        yield (
            (),
            "name: use letters, digits, '.', '_' and '-', the first a letter or digit, at most 103 in all "
            + given(value),
        )


def _registered(what: str, known: Iterable[str]) -> Callable[[object], Found]:
    def check(value: object) -> Found:
        if isinstance(value, str) and value not in known:
            yield (), unknown_name(what, shortened(value), known)

    return check


def _model(value: object) -> Found:
    """One of the registry, of the hub, or in a folder; whether the latter two are there, the job finds out."""
    if isinstance(value, str) and not is_pretrained(value):
        yield from _registered("model", MODELS)(value)


def _accelerators(value: object) -> Found:
    """Pydantic would report a mistake here once for each branch of the union."""
    if value == "each":
        return
    if not isinstance(value, list | tuple):
        yield (), f"resources.accelerators: should be a list of accelerator types, or each {given(value)}"
        return
    for index, item in enumerate(value):
        if not isinstance(item, str):
            yield (index,), f"resources.accelerators: an accelerator type is text {given(item)}"
        elif item not in ACCELERATOR_TYPES:
            yield (index,), unknown_name("accelerator type", shortened(item), ACCELERATOR_TYPES)


def _gpus(value: object) -> Found:
    """Pydantic would report a mistake here once for each kind of number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield (), f"resources.gpus: should be a number of GPUs {given(value)}"
    elif value < 0 or (value > 1 and value != int(value)):
        yield (), f"resources.gpus: should be 0, a part of one GPU (0.5), or a whole number {given(value)}"


def _labels(value: object) -> Found:
    if not isinstance(value, Mapping):
        yield (), f"resources.labels: should map labels of nodes to their values {given(value)}"
        return
    for key, wanted in value.items():
        if not re.fullmatch(_LABEL_KEY, key):
            yield (key,), f"resources.labels: {printable(key)!r} cannot be a label; as in region or example.com/rack"
        if not isinstance(wanted, str):
            yield (key,), f"resources.labels: the value of a label is text, so put it in quotes {given(wanted)}"
        elif not re.fullmatch(_LABEL_VALUE, wanted):
            told = "is up to 63 letters, digits, '.', '_' and '-', a letter or digit at both ends"
            yield (key,), f"resources.labels: the value of a label {told} {given(wanted)}"


_LABEL_VALUE = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"([A-Za-z0-9][A-Za-z0-9.-]{{0,252}}/)?{_LABEL_VALUE}"
"""As Ray takes them on nodes; its operators (``in(a,b)``, ``!a``) are not read here."""


def _needs(value: object) -> Found:
    if not isinstance(value, list | tuple):
        yield (), f"needs: should be a list of names of manifests, jobs or runs {given(value)}"
        return
    for index, name in enumerate(value):
        if not isinstance(name, str) or not name:
            yield (index,), f"needs: should be the name of a manifest, a job or a run {given(name)}"
        elif name in value[:index]:
            yield (index,), f"needs: {shortened(name)} is given twice; remove one"


def _deadline(value: object) -> Found:
    if isinstance(value, str) and not re.fullmatch(DEADLINE_PATTERN, value):
        yield (), f"schedule.deadline: write it with its offset from UTC, as 2026-12-01T18:00:00Z {given(value)}"


def _trained_by(value: object) -> Found:
    if value == "":
        yield (), "adapter.trained_by: name a manifest or a job, or remove the key"


def _on_exceed(value: object) -> Found:
    if value in ("cap", "stop"):
        yield (), f"budget.on_exceed {value} comes with power caps and is not supported by this version; write warn"


def _region(value: object) -> Found:
    if isinstance(value, str):
        try:
            intensity_of(value)
        except UnknownNameError as error:
            yield (), f"accounting.region: {error}"


def _intensity(value: object) -> Found:
    if isinstance(value, str) and not re.fullmatch(INTENSITY_PATTERN, value):
        listing = f"{', '.join(INTENSITY_NAMES)}, or a file that ends in .csv or .parquet"
        yield (), unknown_name("source of accounting.intensity", shortened(value), INTENSITY_NAMES, listing=listing)


def _seeds(value: object) -> Found:
    if not isinstance(value, list | tuple) or not value:
        yield (), f"seeds: should be a list of at least one integer {given(value)}"
        return
    seen: set[object] = set()
    for index, seed in enumerate(value):
        if isinstance(seed, int) and seed in seen:
            yield (index,), f"seeds: {seed} is given twice; remove one"
        elif isinstance(seed, int):
            seen.add(seed)


_VALUE_CHECKS: dict[str, Callable[[object], Found]] = {
    "version": _version,
    "name": _name,
    "task": _registered("task", TASKS),
    "model": _model,
    "budget.on_exceed": _on_exceed,
    "adapter.trained_by": _trained_by,
    "resources.gpus": _gpus,
    "resources.labels": _labels,
    "needs": _needs,
    "resources.accelerators": _accelerators,
    "schedule.deadline": _deadline,
    "accounting.region": _region,
    "accounting.intensity": _intensity,
    "seeds": _seeds,
}
"""What pydantic cannot say, or says less well; where one of these finds something, pydantic is not asked."""
