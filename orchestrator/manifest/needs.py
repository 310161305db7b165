"""Which job needs which: names in manifests to the ids of jobs. Pure.

A manifest needs another as a whole. Of their jobs, those pair up that agree in everything that both vary: an
evaluation of two models and three seeds needs, job by job, the fine-tune of the same model and seed.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.manifest.model import SWEEPABLE, Manifest, places
from workers.contract import JobSpec
from workers.section import KeyPath

TRAINED_BY = "adapter.trained_by"
_VARIED: tuple[str, ...] = (*(path for path in SWEEPABLE if path != TRAINED_BY), "seed")
"""What two jobs can differ in."""
_SHOWN = 5
"""Jobs that a message lists; the rest is counted."""

Known = Mapping[str, Sequence[JobSpec]]
"""What a ledger knows: an id of a job or run, or the name of a run, to its jobs."""


def need_places(data: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Every name a manifest needs, of whatever form it is, and where it says so."""
    for path, listed in places(data, "needs"):
        if isinstance(listed, list | tuple):
            yield from (((*path, index), name) for index, name in enumerate(listed) if isinstance(name, str))
    for path, name in places(data, TRAINED_BY):
        if isinstance(name, str):
            yield path, name


def needed_by(manifest: Manifest) -> tuple[str, ...]:
    """The names a manifest needs, each once: its ``needs``, then the trainers of its weights."""
    data = manifest.model_dump(include={"needs", "adapter", "sweep"})
    return tuple(dict.fromkeys(name for _, name in need_places(data)))


def in_order(needs: Mapping[str, Collection[str]]) -> tuple[str, ...] | Cycle:
    """Names so that each comes after those it needs, else as given; names that are no keys are left out."""
    known = {name: [other for other in needed if other in needs] for name, needed in needs.items()}
    try:
        return tuple(graphlib.TopologicalSorter(known).static_order())
    except graphlib.CycleError as error:
        return Cycle(path=tuple(reversed(error.args[1])))  # graphlib's goes from what is needed to who needs it


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Manifests that need each other, in a ring; the first is the last."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        ring = " → ".join(self.path)
        return f"needs go round in a circle, so none could ever start: {ring}; remove one of them"


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Jobs that others may need.

    Attributes:
        name: what they are known by.
        specs: all of them.
    """

    name: str
    specs: Sequence[JobSpec]

    @cached_property
    def wanted(self) -> tuple[JobSpec, ...]:
        """Without those that only take the shared baseline of others."""
        baselines = {spec.baseline_job for spec in self.specs}
        return tuple(spec for spec in self.specs if spec.job_id not in baselines)

    @cached_property
    def varied(self) -> frozenset[str]:
        """Dotted paths of what its jobs differ in."""
        return varied(self.wanted)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which of ``needed`` each of some jobs needs: those that agree with it in all that both vary."""

    jobs: Jobs
    needed: Jobs
    _index: dict[tuple[object, ...], list[JobSpec]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for spec in self.needed.wanted:
            self._index.setdefault(self._key(spec), []).append(spec)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """What both vary."""
        return tuple(sorted(self.jobs.varied & self.needed.varied))

    def of(self, spec: JobSpec) -> Sequence[JobSpec]:
        """The jobs that agree with it; none where one of its values has no counterpart."""
        return self._index.get(self._key(spec), ())

    def _key(self, spec: JobSpec) -> tuple[object, ...]:
        return tuple(_value(spec, path) for path in self.axes)


def needs_of(spec: JobSpec, pairing: Pairing) -> tuple[str, ...]:
    """Ids of the jobs it needs; all of them where none agrees with it."""
    return tuple(need.job_id for need in pairing.of(spec) or pairing.needed.wanted)


def trainer_of(spec: JobSpec, pairing: Pairing, given: Collection[str]) -> JobSpec | str:
    """The fine-tune whose weights a job takes, or why there is not exactly one.

    Its task and model are the job's, and its seed, from which the base of a ``tiny/*`` model follows: weights of an
    adapter on another base are noise.

    Args:
        spec: the job as its manifest says it.
        pairing: it and its like with the jobs of ``adapter.trained_by``.
        given: dotted paths of the adapter's keys that the manifest sets; they choose among the fine-tunes.
    """
    must = ("task", "model", "seed", *sorted(given))
    finetunes = [other for other in pairing.of(spec) if other.kind == "finetune"]
    found = [other for other in finetunes if all(_value(other, path) == _value(spec, path) for path in must)]
    if len(found) == 1:
        return found[0]
    asked = ", ".join(f"{path} {_value(spec, path)}" for path in dict.fromkeys((*must, *pairing.axes)))
    beginning = f"{TRAINED_BY}: {pairing.needed.name}"
    if found:
        apart = sorted(varied(found))
        remedy = f"sweep {', '.join(apart)} here too" if apart else "name one job"
        return f"{beginning} has {len(found)} fine-tunes of {asked}: {_shown(found, apart)}; {remedy}"
    others = [other for other in pairing.needed.wanted if other.kind == "finetune"]
    shown = f"it has {_shown(others, must)}" if others else "it has no fine-tune at all"
    return f"{beginning} has no fine-tune of {asked}; {shown}"


def varied(specs: Iterable[JobSpec]) -> frozenset[str]:
    """Dotted paths of what jobs differ in."""
    values: dict[str, object] = {}
    found: set[str] = set()
    for spec in specs:
        for path in _VARIED:
            if path not in found and values.setdefault(path, value := _value(spec, path)) != value:
                found.add(path)
    return frozenset(found)


def _value(spec: JobSpec, path: str) -> object:
    """What a job says at a dotted path, in a form that can be looked up."""
    here: object = spec
    for key in path.split("."):
        here = None if here is None else getattr(here, key)  # a section that is left out
    return tuple(sorted(here.items())) if isinstance(here, Mapping) else here


def _shown(specs: Sequence[JobSpec], paths: Iterable[str]) -> str:
    """Jobs by their ids and what they say at ``paths``."""
    listed = [f"{spec.job_id} ({', '.join(f'{path} {_value(spec, path)}' for path in paths)})" for spec in specs]
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
