"""What a manifest says under one of its profiles: the same experiment at another size, and known by another name. Pure.

A profile's values take the place of the manifest's, key by key of its sections. Axes of its sweep take the place of
the manifest's of the same path, and null removes one.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.manifest.document import Document, dotted, printable, shortened
from orchestrator.manifest.fields import Finding, given
from orchestrator.manifest.model import (
    FIXED_IN_PROFILES,
    MAX_NAME,
    MAX_PROFILES,
    PROFILE_PATTERN,
    SWEEPABLE,
    Manifest,
    section_at,
)
from orchestrator.manifest.needs import need_places
from workers.errors import unknown_name
from workers.section import KeyPath, Section

Body = Mapping[str, object]
"""A manifest, or a part of it, of whatever form."""


def profile_names(data: Body) -> tuple[str, ...]:
    """The profiles of a manifest that can be applied, right or wrong in what they say."""
    return tuple(name for name, change in _at(data, "profiles").items() if isinstance(change, Mapping))[:MAX_PROFILES]


def profile_findings(data: Body) -> Iterator[Finding]:
    """What is wrong with profiles as such; what a manifest says under them is checked as any other."""
    profiles = data.get("profiles", {})
    if not isinstance(profiles, Mapping):
        yield Finding(("profiles",), f"profiles: should map names to what the manifest says instead {given(profiles)}")
        return
    if len(profiles) > MAX_PROFILES:
        told = f"profiles: at most {MAX_PROFILES} are taken, and here are {len(profiles):,}; remove some"
        yield Finding(("profiles",), told)
    for name, change in profiles.items():
        at = ("profiles", name)
        if not re.fullmatch(PROFILE_PATTERN, name):
            told = "use letters, digits, '.', '_' and '-', the first a letter or digit, at most 32 in all"
            yield Finding(at, f"profiles: {told} {given(name)}")
        elif len(name_under(str(data.get("name")), name)) > MAX_NAME:
            yield Finding(
                at,
                f"profile {printable(name)}: with the manifest's name it has more than {MAX_NAME} letters; shorten one",
            )
        if isinstance(change, Mapping):
            yield from (
                Finding((*at, *path), f"profile {printable(name)}: {text}") for path, text in _misplaced(data, change)
            )
        else:
            told = f"should map keys of the manifest to what they say instead; {{}} changes nothing {given(change)}"
            yield Finding(at, f"{dotted(at)}: {told}")


def absent(data: Body, profile: str) -> str | None:
    """Why a manifest cannot be run under a profile; ``None`` where it has it."""
    profiles = _at(data, "profiles")
    if profile in profiles:
        return None
    if profiles:
        return unknown_name("profile", shortened(profile), map(printable, profiles))
    remedy = f"to run it under that name as it is, write profiles: {{{printable(profile)}: {{}}}}"
    return f"unknown profile {shortened(profile)!r}; this manifest has none; {remedy}"


def under(document: Document, profile: str) -> Document:
    """What a manifest says under one of ``profile_names``, each key with the line that says so.

    Its problems are those of the document as written, so none are repeated. Its name is still the manifest's own.
    """
    data, at = document.body, ("profiles", profile)
    change = {key: value for key, value in _at(_at(data, "profiles"), profile).items() if key not in FIXED_IN_PROFILES}
    merged = _merged(Manifest, {key: value for key, value in data.items() if key != "profiles"}, change)
    if isinstance(change.get("sweep"), Mapping):
        merged["sweep"] = _merged_sweep(_at(data, "sweep"), _at(change, "sweep"))
    told = {path[2:]: path for path in document.lines if path[:2] == at and path[2:3] and path[2] in change}
    written = {path: line for path, line in document.lines.items() if path[0] != "profiles"}
    unread = {path for path in document.unread if path[:1] != ("profiles",) and path not in told}
    return dataclasses.replace(
        document,
        data=merged,
        lines=written | {path: document.lines[whole] for path, whole in told.items()},
        problems=(),
        unread=frozenset(unread | {path for path, whole in told.items() if whole in document.unread}),
    )


def name_under(name: str, profile: str) -> str:
    """What a manifest, and so its runs and jobs, are called under a profile: ``cegi-sql-tiny``."""
    return f"{name}-{profile}"


def renamed(data: Body, names: Mapping[str, str]) -> dict[str, Any]:
    """``data`` with the manifests of its submission, itself and those it needs, called by their new names."""
    body: dict[str, Any] = copy.deepcopy(dict(data))
    for path, name in [(("name",), str(body["name"])), *need_places(body)]:
        here: Any = body
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = names.get(name, name)
    return body


def _merged(section: type[Section], base: Body, change: Body) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        field = section.model_fields.get(key)
        inner = section_at(field) if field is not None else None
        here = base.get(key)
        if inner is not None and isinstance(here, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(inner, here, value)
        else:
            merged[key] = value
    return merged


def _merged_sweep(base: Body, change: Body) -> dict[str, object]:
    """An axis that is replaced keeps its place in the order of the jobs."""
    axes = {**base, **{path: values for path, values in change.items() if path not in FIXED_IN_PROFILES}}
    return {path: values for path, values in axes.items() if values is not None or path not in change}


def _misplaced(data: Body, change: Body) -> Iterator[tuple[KeyPath, str]]:
    """What a profile may not change, and what it would change in vain."""
    written, axes = _at(data, "sweep"), _at(change, "sweep")
    for path in ((key,) for key in change if key in FIXED_IN_PROFILES):
        yield path, f"{path[0]} cannot be changed; {FIXED_IN_PROFILES[path[0]]}"
    for axis, values in axes.items():
        if axis in FIXED_IN_PROFILES:
            yield ("sweep", axis), f"sweep.{axis} cannot be changed; {FIXED_IN_PROFILES[axis]}"
        elif values is None and axis not in written:
            yield ("sweep", axis), f"sweep: {printable(axis)} is no axis of the manifest that null could remove"
    for axis in written:
        keys = tuple(axis.split("."))
        if axis in SWEEPABLE and axis not in axes and keys[0] not in FIXED_IN_PROFILES and _gives(change, keys):
            told = (
                f"{axis} is swept by the manifest, so this value would not be used; write sweep: {{{axis}: null}} too"
            )
            yield keys, told


def _gives(body: object, path: KeyPath) -> bool:
    for key in path:
        if not isinstance(body, Mapping) or key not in body:
            return False
        body = body[key]
    return True


def _at(data: Body, key: str) -> Body:
    """The mapping at a key; an empty one where something else is."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}
