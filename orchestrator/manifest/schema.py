"""The manifest's format as a JSON Schema (draft 2020-12), for editors that complete and check as one types."""

from __future__ import annotations

import copy
from typing import Any

from orchestrator.manifest.model import (
    ACCELERATOR_TYPES,
    FIXED_IN_PROFILES,
    MAX_PROFILES,
    NEEDED,
    PROFILE_PATTERN,
    SWEEPABLE,
    VERSION,
    Manifest,
)
from workers.tasks import TASKS
from workers.training.models import HUB_PATTERN, MODELS

Schema = dict[str, Any]


def manifest_schema() -> Schema:
    """The schema: every key this version honours, with its description, and the names of the registries.

    It accepts each manifest that ``parse_manifest`` accepts; what several keys must say together is left to that.
    """
    schema: Schema = Manifest.model_json_schema()
    sections: Schema = schema.pop("$defs")
    properties: Schema = schema["properties"]
    for name, part in properties.items():
        properties[name] = _section(part, sections)
    _name_what_is_known(properties)
    properties["sweep"] |= {"properties": {path: _axis(properties, path) for path in SWEEPABLE}}
    properties["sweep"]["additionalProperties"] = False
    properties["profiles"] |= {
        "propertyNames": {"pattern": PROFILE_PATTERN},
        "maxProperties": MAX_PROFILES,
        "additionalProperties": _profile(),
    }
    needed = [{"anyOf": [{"required": [key]}, _swept(key)]} for key in NEEDED]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:wattledger:manifest:{VERSION}",
        "title": f"Wattledger manifest, version {VERSION}",
        "description": "An experiment: one job, or the product of its sweep, its accelerator types and its seeds.",
        "type": "object",
        "properties": properties,
        "required": schema["required"],
        "allOf": needed,
        "additionalProperties": False,
    }


def _section(part: Schema, sections: Schema) -> Schema:
    """A property with its section written out in place and without the titles pydantic derives from names."""
    # A section that may be left out is one of two to pydantic: its reference, and null, which no manifest writes.
    reference = next((one["$ref"] for one in (part, *part.get("anyOf", ())) if "$ref" in one), None)
    if reference is not None:
        section = sections[reference.rpartition("/")[2]]
        keys = {key: _section(value, sections) for key, value in section["properties"].items()}
        told = part.get("description", "")
        return {"type": "object", "description": told, "properties": keys, "additionalProperties": False}
    return {key: value for key, value in part.items() if key != "title"}


def _name_what_is_known(properties: Schema) -> None:
    """Put the registries' names, and what this version cannot honour, where pydantic knows only types."""
    properties["task"] = {"enum": sorted(TASKS), "description": properties["task"]["description"]}
    known = [{"enum": sorted(MODELS)}, {"type": "string", "pattern": f"^(?!tiny/)({HUB_PATTERN})$"}]
    properties["model"] = {"anyOf": known, "description": properties["model"]["description"]}
    properties["budget"]["properties"]["on_exceed"]["enum"] = ["warn"]
    resources = properties["resources"]["properties"]
    resources["gpus"] = {
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "maximum": 1}],
        "default": 1,
        "description": resources["gpus"]["description"],
    }
    resources["accelerators"] = {
        "anyOf": [{"type": "array", "items": {"enum": list(ACCELERATOR_TYPES)}}, {"const": "each"}],
        "default": [],
        "description": resources["accelerators"]["description"],
    }


def _axis(properties: Schema, path: str) -> Schema:
    *sections, key = path.split(".")
    for section in sections:
        properties = properties[section]["properties"]
    field = copy.deepcopy(properties[key])
    field.pop("default", None)
    told = field.pop("description", "")
    return {"type": "array", "items": field, "minItems": 1, "uniqueItems": True, "description": told}


def _profile() -> Schema:
    """What each profile may say: the manifest's own keys, of which it may remove axes."""
    keys: Schema = {
        key: {"$ref": f"#/properties/{key}"} for key in Manifest.model_fields if key not in FIXED_IN_PROFILES
    }
    axes = {
        path: {"anyOf": [{"$ref": f"#/properties/sweep/properties/{path}"}, {"type": "null"}]}
        for path in SWEEPABLE
        if path not in FIXED_IN_PROFILES
    }
    keys["sweep"] = {"type": "object", "properties": axes, "additionalProperties": False}
    return {"type": "object", "properties": keys, "additionalProperties": False}


def _swept(key: str) -> Schema:
    return {"required": ["sweep"], "properties": {"sweep": {"required": [key]}}}
