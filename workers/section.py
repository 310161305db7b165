"""A part of a job as its user writes it, and what is wrong with one, in sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
from pydantic import ConfigDict

KeyPath = tuple[str | int, ...]
"""Keys, and numbers in lists, from the top down."""


class Section(pydantic.BaseModel):
    """A part of a job as its user writes it: frozen, keyword-only, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def section_problems(model: type[Section], data: object) -> list[tuple[KeyPath, str]]:
    """Everything that is wrong with ``data`` as ``model``: ``(path, sentence)`` pairs, empty when it is fine."""
    try:
        model.model_validate(data)
    except pydantic.ValidationError as error:
        return [(_problem_path(item["loc"]), _sentence(model, dict(item))) for item in error.errors()]
    return []


def _problem_path(location: KeyPath) -> KeyPath:
    """Pydantic's location without the names of union branches it adds (``accelerators.tuple[...]``)."""
    return tuple(part for part in location if isinstance(part, int) or re.fullmatch(r"[A-Za-z_][\w.-]*", part))


def _sentence(model: type[Section], item: Mapping[str, Any]) -> str:
    """Pydantic's finding as a sentence of ours."""
    if item["type"] == "missing":
        return "is missing"
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, item["loc"][:-1])
        return f"unknown key{'; known: ' + ', '.join(known) if known else ''}"
    given = json.dumps(item.get("input"), default=str)
    message = str(item["msg"])
    return f"{message[0].lower()}{message[1:]} (given {given[:80]})"


def _keys_at(model: type[Section], path: KeyPath) -> list[str]:
    """The keys a section takes at ``path`` below ``model``; empty where the path leads out of sections."""
    here: type[Section] | None = model
    for part in path:
        known = here.model_fields.get(str(part)) if here is not None else None
        here = section_of(known.annotation) if known is not None else None
    return list(here.model_fields) if here is not None else []


def section_of(annotation: object) -> type[Section] | None:
    """The section a field's annotation holds, one that may be left out too; ``None`` for a plain value."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
    return sections[0] if sections else None
