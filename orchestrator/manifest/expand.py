"""Manifests to their jobs: the product of the sweep's axes, the accelerator types and the seeds, and who needs whom."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.manifest.baselines import NAME_LENGTH, SUFFIX, with_baselines
from orchestrator.manifest.model import MAX_JOBS, MAX_PROBLEMS, Manifest
from orchestrator.manifest.needs import (
    TRAINED_BY,
    Cycle,
    Jobs,
    Known,
    Pairing,
    in_order,
    needed_by,
    needs_of,
    trainer_of,
)
from workers.contract import JobSpec
from workers.errors import InputError, unknown_name

_DIGEST_LENGTHS = (8, 16, 24)
"""Hex digits of a job id. Of 100,000 ids of 8, some two are likelier equal than not; a later one then takes more."""
MAX_NEEDS = 1_000_000
"""Ids of needed jobs of one manifest: two sweeps of a thousand jobs that have nothing in common reach it."""
NOTHING: Known = {}
"""An empty ledger."""


def expand(
    manifest: Manifest, *, accelerator_types: Sequence[str], submission_id: str, known: Known = NOTHING
) -> tuple[JobSpec, ...]:
    """The jobs of a submission of one manifest; see ``expand_all``."""
    return expand_all([manifest], accelerator_types=accelerator_types, submission_id=submission_id, known=known)[0][1]


def expand_all(
    manifests: Sequence[Manifest], *, accelerator_types: Sequence[str], submission_id: str, known: Known = NOTHING
) -> tuple[tuple[Manifest, tuple[JobSpec, ...]], ...]:
    """The jobs of manifests that were read and checked, those that others need first.

    Within a manifest shared baselines come first; else the first axis of the sweep turns slowest, then the accelerator
    types, and the seeds turn fastest. A job id is the manifest's name and the first digits of a digest over the
    submission and all the job says, so that the same manifests and submission always give the same ids, on any machine.

    Args:
        manifests: what to expand, each with a name of its own.
        accelerator_types: the types there are, which ``resources.accelerators: each`` stands for, in this order.
        submission_id: tells two submissions of one manifest apart.
        known: what the ledger knows by the names that ``needs`` and ``adapter.trained_by`` may hold; a manifest of
            the submission goes before it.

    Raises:
        InputError: needs that nobody knows or that go round in a circle; no job, or several, that trained what another
            uses; ``each`` and no types; more than ``MAX_JOBS`` jobs of a manifest; two jobs that are the same.
    """
    types = tuple(dict.fromkeys(accelerator_types))
    found: dict[str, Jobs] = {}
    ordered = _ordered(manifests, known)
    for manifest in ordered:
        needed = {
            name: found[name] if name in found else Jobs(name=name, specs=known[name]) for name in needed_by(manifest)
        }
        specs = _jobs(manifest, types, submission_id, needed, of_submission=found)
        found[manifest.name] = Jobs(name=manifest.name, specs=specs)
    return tuple((manifest, tuple(found[manifest.name].specs)) for manifest in ordered)


def _ordered(manifests: Sequence[Manifest], known: Known) -> list[Manifest]:
    by_name = {manifest.name: manifest for manifest in manifests}
    if len(by_name) < len(manifests):
        raise InputError("two manifests of a submission have the same name. Rename one of them.")
    needs = {name: needed_by(manifest) for name, manifest in by_name.items()}
    order = in_order(needs)
    if isinstance(order, Cycle):
        raise InputError(f"{order}.")
    names = {*by_name, *known} if any(needs.values()) else set(by_name)
    listing = f"the manifests submitted together ({', '.join(by_name)}) and the jobs and runs of the ledger"
    unknown = [
        f"{name} needs what is not known: {unknown_name('manifest, job or run', need, names - {name}, listing=listing)}"
        for name, needed in needs.items()
        for need in needed
        if need not in names
    ]
    if unknown:
        raise InputError("\n".join(unknown))
    return [by_name[name] for name in order]


def _jobs(
    manifest: Manifest,
    types: tuple[str, ...],
    submission_id: str,
    needed: Mapping[str, Jobs],
    *,
    of_submission: Collection[str],
) -> tuple[JobSpec, ...]:
    bodies: list[Mapping[str, object]] = []
    for body in _bodies(manifest, types):
        bodies.append(body)
        if len(bodies) > MAX_JOBS:
            raise InputError(
                f"{manifest.name} makes more than {MAX_JOBS:,} jobs on {len(types)} accelerator types. "
                "Shorten its sweep, its seeds or resources.accelerators."
            )
    written = [JobSpec.model_validate(body) for body in bodies]
    specs = _linked(manifest, written, needed)
    # What the ledger knows by a name may change; the same submission must give the same ids all the same.
    others = sorted(needed.keys() - of_submission)
    own = {spec.job_id for name in needed.keys() & of_submission for spec in needed[name].specs}
    digests = [
        _digest(said, [submission_id, *others, *(need for need in spec.needs if need in own)])
        for said, spec in zip(written, specs, strict=True)
    ]
    ids = short_ids(manifest.name, digests)
    named = [spec.model_copy(update={"job_id": job_id}) for spec, job_id in zip(specs, ids, strict=True)]
    stem = f"{manifest.name[:NAME_LENGTH]}{SUFFIX}"
    return with_baselines(named, lambda jobs: short_ids(stem, [_digest(job, [submission_id, stem]) for job in jobs]))


def _linked(manifest: Manifest, written: Sequence[JobSpec], needed: Mapping[str, Jobs]) -> list[JobSpec]:
    """Jobs with the ids of those they need, and those that use trained weights with how these were adapted."""
    jobs = Jobs(name=manifest.name, specs=written)
    pairings = {name: Pairing(jobs=jobs, needed=others) for name, others in needed.items()}
    given = {f"adapter.{key}" for key in manifest.adapter.model_fields_set}
    given |= {path for path in manifest.sweep if path.startswith("adapter.")}
    linked: list[JobSpec] = []
    problems: dict[str, None] = {}
    count = 0
    for spec in written:
        needs = [need for name in manifest.needs for need in needs_of(spec, pairings[name])]
        change: dict[str, object] = {}
        if spec.adapter.trained_by is not None:
            trainer = trainer_of(spec, pairings[spec.adapter.trained_by], given - {TRAINED_BY})
            if isinstance(trainer, str):
                problems[f"{manifest.name}: {trainer}."] = None
                continue
            needs.append(trainer.job_id)
            adapter = trainer.adapter.model_copy(update={"trained_by": spec.adapter.trained_by})
            change = {"adapter": adapter, "adapter_job": trainer.job_id}
        count += len(needs)
        if count > MAX_NEEDS:
            raise InputError(
                f"the jobs of {manifest.name} have more than {MAX_NEEDS:,} needs. "
                "Sweep the same keys in both manifests, so that their jobs pair up, or name single jobs."
            )
        linked.append(spec.model_copy(update={**change, "needs": tuple(dict.fromkeys(needs))}) if needs else spec)
    if problems:
        raise InputError("\n".join(list(problems)[:MAX_PROBLEMS]))
    return linked


def _bodies(manifest: Manifest, types: tuple[str, ...]) -> Iterator[dict[str, object]]:
    base = manifest.model_dump(exclude={"version", "seeds", "sweep", "needs", "profiles"})
    for values in itertools.product(*manifest.sweep.values()):
        body = dict(base)
        for path, value in zip(manifest.sweep, values, strict=True):
            *sections, key = path.split(".")
            here = body
            for section in sections:
                here[section] = dict(here[section] or {})
                here = here[section]
            here[key] = value
        for accelerators in _accelerators(body["resources"]["accelerators"], types):
            resources = {**body["resources"], "accelerators": accelerators}
            for seed in manifest.seeds:
                yield {**body, "resources": resources, "seed": seed}


def _accelerators(asked: object, types: tuple[str, ...]) -> Sequence[object]:
    """What each job of one combination asks for: one type for each job, or the one list for a single job."""
    if asked != "each":
        return [asked]
    if not types:
        raise InputError(
            "resources.accelerators is 'each', but there is no accelerator to expand it to. "
            "Name the accelerator types in the manifest, or start a cluster with a node that has one."
        )
    return [(one,) for one in types]


def _digest(spec: JobSpec, beside: Sequence[str]) -> str:
    resolved = spec.model_dump(mode="json", exclude={"job_id"})
    canonical = json.dumps([*beside, resolved], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def short_ids(name: str, digests: Sequence[str]) -> list[str]:
    """``name-digest`` for each hex digest, cut as short as leaves it different from every one before it.

    Raises:
        InputError: two digests are the same, so two jobs are.
    """
    whole: set[str] = set()
    taken: dict[str, None] = {}
    for digest in digests:
        if digest in whole:
            raise InputError(
                f"two jobs of {name} are the same in every field. "
                "Remove one of the sweep's values that come to the same, such as accelerators each and a list."
            )
        whole.add(digest)
        candidates = (f"{name}-{digest[:length]}" for length in _DIGEST_LENGTHS)
        taken[next(job_id for job_id in candidates if job_id not in taken)] = None
    return list(taken)
