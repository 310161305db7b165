"""What a manifest may say: the sections of a job, and which of its keys this version honours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue, Strict
from pydantic.fields import FieldInfo

from workers.contract import (
    Accounting,
    Adapter,
    Budget,
    Evaluation,
    Inference,
    Kind,
    Names,
    Power,
    Quantization,
    Resources,
    Retry,
    Schedule,
    Training,
    Trust,
)
from workers.section import KeyPath, Section, section_of

VERSION = 1
MAX_JOBS = 100_000
"""Jobs one manifest may expand to: far above any experiment, far below what exhausts the head."""
MAX_PROBLEMS = 100
"""Problems listed of one manifest; nobody reads more, and the file is then not a manifest at all."""
MAX_NAME = 103
"""A job id is the name, a dash and up to 24 hex digits, and holds at most 128 characters."""
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}$"
MAX_PROFILES = 16
"""Profiles of a manifest; under each it is checked whole."""
PROFILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
"""It ends the name of what is run under it."""

ACCELERATOR_TYPES: tuple[str, ...] = (
    "H200",
    "H100",
    "A100-80GB",
    "A100-40GB",
    "A40",
    "A10G",
    "L40S",
    "L4",
    "T4",
    "V100",
    "P100",
    "K80",
    "RTX-4090",
    "RTX-3090",
    "RTX-3070",
)
"""The accelerator types a manifest may name, data-centre cards first. A misspelt type would wait for ever."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Manifest(Section):
    """An experiment: one job, or the product of its sweep, its accelerator types and its seeds.

    ``task`` and ``model`` are ``None`` only where the sweep gives them. ``parse_manifest`` makes these; one made by
    hand has had its fields checked, not what they say together.
    """

    version: Literal[1] = Field(description="version of this format; this build reads 1")
    name: str = Field(pattern=NAME_PATTERN, description="begins every job id; letters, digits, '.', '_' and '-'")
    kind: Kind = Field("finetune", description="finetune, evaluate or inference")
    task: str | None = Field(None, description="a task of the registry; needed unless swept")
    model: str | None = Field(
        None, description="a model of the registry, of the hub (owner/name), or a folder; needed unless swept"
    )
    dataset: str | None = Field(None, description="a data set of the task; null means the task's own")
    adapter: Adapter = Field(Adapter(), description="how the model's weights are adapted")
    quantization: Quantization = Field("none", description="weights of the base model while it trains")
    trust: Trust = Field(Trust(), description="what may run code of a model that is not the registry's: nothing")
    training: Training = Field(Training(), description="the fine-tune loop")
    evaluation: Evaluation = Field(Evaluation(), description="how scores are taken")
    inference: Inference | None = Field(
        None, description="what is measured of inference; where it is given, by jobs of every kind"
    )
    resources: Resources = Field(Resources(), description="what each job holds while it runs")
    power: Power = Field(Power(), description="a power limit on the job's devices; cap_watts or cap_percent")
    budget: Budget = Field(Budget(), description="what each job may cost; energy_kwh, co2e_kg")
    accounting: Accounting = Field(Accounting(), description="how joules become grams")
    schedule: Schedule = Field(Schedule(), description="when the jobs run")
    retry: Retry = Field(Retry(), description="how often a job is tried again")
    needs: Names = Field(
        (),
        json_schema_extra={"uniqueItems": True},
        description="what must have succeeded before: names of manifests of the same submission, ids of jobs, or names "
        "or ids of earlier runs; of two sweeps, the jobs that agree in what both vary need each other",
    )
    seeds: Annotated[tuple[Seed, ...], Strict(False)] = Field(
        (0,),
        json_schema_extra={"minItems": 1, "uniqueItems": True},
        description="one job for each; seeds initialisation and order",
    )
    sweep: Mapping[str, Annotated[tuple[JsonValue, ...], Strict(False)]] = Field(
        {}, description="dotted path to the values it takes in turn, instead of the value given above"
    )
    profiles: Mapping[str, Mapping[str, JsonValue]] = Field(
        {},
        description="name to what the manifest says instead when it is run with --profile NAME; null removes an axis",
    )


UNSUPPORTED_KEYS: frozenset[str] = frozenset({"schedule.policy"})
"""Keys of the format that this version cannot honour; saying so beats ignoring them."""

NOT_SWEPT: Mapping[str, str] = {
    "version": "one manifest has one version",
    "name": "one manifest has one name",
    "seeds": "list them under the key seeds",
    "needs": "each job needs those jobs of what the manifest needs that agree with it in what both vary",
    "sweep": "a sweep holds no sweep",
    "profiles": "one is chosen with --profile",
}
"""Keys that no sweep axis may set, and why."""

FIXED_IN_PROFILES: Mapping[str, str] = {
    "version": "one manifest has one version",
    "name": "the profile's own is put after it",
    "kind": "it is the same experiment, only of another size",
    "task": "it is the same experiment, only of another size",
    "profiles": "a profile holds no profiles",
}
"""Keys that no profile may set, and why."""


NEEDED: tuple[str, ...] = ("task", "model")
"""What every job needs and a manifest may leave to its sweep."""


def section_at(field: FieldInfo) -> type[Section] | None:
    """The section a field holds; ``None`` for a plain value."""
    return section_of(field.annotation)


def _leaves(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for key, field in section.model_fields.items():
        inner = section_at(field)
        if inner is None:
            yield prefix + key, field
        else:
            yield from _leaves(inner, f"{prefix}{key}.")


SWEEPABLE: Mapping[str, FieldInfo] = {
    path: field for path, field in _leaves(Manifest, "") if path.split(".")[0] not in NOT_SWEPT
}
"""Every field a job takes from its manifest, by dotted path: what a sweep axis may set."""


def value_at(body: object, path: str) -> object:
    """What ``body`` says at a path of ``SWEEPABLE``; the field's default where it says nothing.

    ``None`` below a section that may be left out, where it is.
    """
    here, section = body, cast("type[Section]", Manifest)
    for key in path.split("."):
        field = section.model_fields[key]
        inner = section_at(field)
        if isinstance(here, Mapping) and key in here:
            here, section = here[key], inner or section
        elif inner is not None and field.default is not None:
            here, section = {}, inner
        else:
            return None if inner is not None else field.get_default(call_default_factory=True)
    return here


def places(data: Mapping[str, object], path: str) -> Iterator[tuple[KeyPath, object]]:
    """Every value that a manifest, of whatever form, gives for a dotted path, its sweep's included, and where."""
    here: object = data
    keys = tuple(path.split("."))
    for key in keys:
        here = here.get(key) if isinstance(here, Mapping) else None
    if here is not None:
        yield keys, here
    sweep = data.get("sweep")
    values = sweep.get(path) if isinstance(sweep, Mapping) else None
    if isinstance(values, list | tuple):
        yield from ((("sweep", path, index), value) for index, value in enumerate(values))


def nested(path: str, value: object) -> dict[str, object]:
    """``{"training": {"epochs": value}}`` for ``training.epochs``."""
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}
