"""A manifest to its jobs: the product of the sweep's axes, the accelerator types and the seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.manifest.model import MAX_JOBS, Manifest
from workers.contract import JobSpec
from workers.errors import InputError

_DIGEST_LENGTHS = (8, 16, 24)
"""Hex digits of a job id. Of 100,000 ids of 8, some two are likelier equal than not; a later one then takes more."""


def expand(manifest: Manifest, *, accelerator_types: Sequence[str], submission_id: str) -> tuple[JobSpec, ...]:
    """The jobs of a manifest that ``parse_manifest`` returned.

    The first axis of the sweep turns slowest, then the accelerator types, and the seeds turn fastest. A job id is
    the manifest's name and the first digits of a digest over the submission and all the job says, so that the same
    manifest and submission always give the same ids, on any machine.

    Args:
        manifest: what to expand.
        accelerator_types: the types there are, which ``resources.accelerators: each`` stands for, in this order.
        submission_id: tells two submissions of one manifest apart.

    Raises:
        InputError: ``each`` and no types; more than ``MAX_JOBS`` jobs; two jobs that are the same.
    """
    bodies: list[Mapping[str, object]] = []
    for body in _bodies(manifest, tuple(dict.fromkeys(accelerator_types))):
        bodies.append(body)
        if len(bodies) > MAX_JOBS:
            raise InputError(
                f"{manifest.name} makes more than {MAX_JOBS:,} jobs on {len(accelerator_types)} accelerator types. "
                "Shorten its sweep, its seeds or resources.accelerators."
            )
    specs = [JobSpec.model_validate(body) for body in bodies]
    ids = short_ids(manifest.name, [_digest(spec, submission_id) for spec in specs])
    return tuple(spec.model_copy(update={"job_id": job_id}) for spec, job_id in zip(specs, ids, strict=True))


def _bodies(manifest: Manifest, types: tuple[str, ...]) -> Iterator[dict[str, object]]:
    base = manifest.model_dump(exclude={"version", "seeds", "sweep"})
    for values in itertools.product(*manifest.sweep.values()):
        body = {key: dict(part) if isinstance(part, dict) else part for key, part in base.items()}
        for path, value in zip(manifest.sweep, values, strict=True):
            section, _, key = path.rpartition(".")
            if section and body[section] is None:
                body[section] = {}
            (body[section] if section else body)[key] = value
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


def _digest(spec: JobSpec, submission_id: str) -> str:
    resolved = spec.model_dump(mode="json", exclude={"job_id"})
    canonical = json.dumps([submission_id, resolved], sort_keys=True, separators=(",", ":"))
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
