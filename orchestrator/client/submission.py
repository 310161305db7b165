"""Manifests become jobs of the ledger; the controller does the rest."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.carbon.series_file import keep_series
from orchestrator.client.controllers import serving_controller
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.manifest import Manifest, ManifestFile, expand_all, files_of, load_manifests
from orchestrator.manifest.needs import needed_by
from orchestrator.plan import Plan, make_plan
from orchestrator.scheduling.placement import Snapshot, decide
from orchestrator.scheduling.room import needs_of
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.errors import InputError
from workers.home import Home


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A manifest with its jobs, not submitted yet."""

    file: ManifestFile
    specs: tuple[JobSpec, ...]

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.file.manifest


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A manifest that was submitted.

    Attributes:
        run_id: its run; where all of its jobs were submitted before, the run they were submitted with.
        job_ids: its jobs, in order.
        new: how many of them were not there before.
    """

    run_id: str
    name: str
    job_ids: tuple[str, ...]
    new: int


def submit(
    paths: Sequence[Path], *, home: Home, submission_id: str | None = None, profile: str | None = None
) -> tuple[Submission, ...]:
    """Put manifests' jobs into the ledger, all or none, and return at once; needs no Ray.

    The same manifests, ``profile`` and ``submission_id`` again submit nothing twice.

    Raises:
        ManifestError: a manifest has problems.
        InputError: a job that no node could ever run, or a quota is exceeded.
        UnreachableError: no controller would see to them. Nothing was submitted in all of these cases.
    """
    files = load_manifests(paths, profile=profile)
    with contextlib.closing(Store(home.state_db)) as store:
        view = ClusterView.from_json(serving_controller(store, home).cluster)
        drafts = expand_on(files, view, submission_id=submission_id, store=store)
        check_possible([spec for draft in drafts for spec in draft.specs], view)
        return enter(store, home, drafts, [new_run_id(draft.manifest.name) for draft in drafts])


def expand_on(
    files: Sequence[ManifestFile], view: ClusterView, *, submission_id: str | None, store: Store | None = None
) -> tuple[Draft, ...]:
    """The jobs of manifests on this cluster, those that others need first; a submission without an id is a new one.

    ``store`` knows the jobs and runs that they may need besides each other.

    Raises:
        InputError: jobs that cannot be made, or need what nobody knows.
    """
    by_name = {file.manifest.name: file for file in files}
    manifests = [file.manifest for file in files]
    needs_others = {name for manifest in manifests for name in needed_by(manifest)} - by_name.keys()
    expanded = expand_all(
        manifests,
        accelerator_types=view.accelerator_types,
        submission_id=submission_id or secrets.token_hex(8),
        known=_known(store) if store is not None and needs_others else {},
    )
    return tuple(Draft(file=by_name[manifest.name], specs=specs) for manifest, specs in expanded)


def _known(store: Store) -> dict[str, tuple[JobSpec, ...]]:
    """What a ledger knows by the ids of its jobs and runs, and by the names of its runs, of which the latest counts."""
    by_run: dict[str, list[JobSpec]] = {}
    for job in store.jobs():
        by_run.setdefault(job.run_id, []).append(job.spec)
    known = {run.name: tuple(by_run.get(run.run_id, ())) for run in reversed(store.runs())}
    known |= {run_id: tuple(specs) for run_id, specs in by_run.items()}
    return known | {spec.job_id: (spec,) for specs in by_run.values() for spec in specs}


def check_possible(specs: Sequence[JobSpec], view: ClusterView) -> None:
    """Pass silently when a node could run each job.

    Raises:
        InputError: some never could; all are named, with the nearest that could.
    """
    by_needs = {needs_of(spec): spec for spec in reversed(specs)}
    queued = [
        JobRecord(spec=spec, run_id="", sequence=number, state=JobState.QUEUED, reason=None, submitted_ns=0)
        for number, spec in enumerate(by_needs.values())
    ]
    waiting = decide(Snapshot(now_ns=0, cluster=view, queued=queued)).waiting
    models = {job.job_id: job.spec.model for job in queued}
    _refuse([(models[each.job_id], each.reason) for each in waiting if each.impossible])


def checked_plan(specs: Sequence[JobSpec], view: ClusterView) -> Plan:
    """The plan of jobs that can all run.

    Raises:
        InputError: some never could; all are named.
    """
    plan = make_plan(specs, view)
    _refuse([(job.model, job.impossible) for job in plan.impossible if job.impossible])
    return plan


def _refuse(impossible: Sequence[tuple[str, str]]) -> None:
    if impossible:
        reasons = dict.fromkeys(f"  {model}: {reason}" for model, reason in impossible)
        raise InputError("\n".join(["some jobs can never run here; nothing was submitted.", *reasons]))


def enter(
    store: Store, home: Home, drafts: Sequence[Draft], run_ids: Sequence[str], *, bound: bool = False
) -> tuple[Submission, ...]:
    """Write runs and jobs, all or none.

    Raises:
        InputError: a quota is exceeded, or the disk refuses; nothing was submitted.
    """
    for draft, run_id in zip(drafts, run_ids, strict=True):
        keep_series(home, run_id, draft.file.path.parent, files_of(draft.specs))
    entered = []
    with store.together():
        for draft, run_id in zip(drafts, run_ids, strict=True):
            new = store.submit(_record(draft, run_id, bound=bound), draft.specs)
            entered.append(
                Submission(
                    run_id=run_id if new else store.job(draft.specs[0].job_id).run_id,
                    name=draft.manifest.name,
                    job_ids=tuple(spec.job_id for spec in draft.specs),
                    new=new,
                )
            )
    return tuple(entered)


def new_run_id(name: str) -> str:
    """What a run of a manifest is called: its name, when, and what tells two of one second apart."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _record(draft: Draft, run_id: str, *, bound: bool) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        name=draft.manifest.name,
        manifest=draft.file.text,
        submitted_ns=time.time_ns(),
        host=socket.gethostname(),
        pid=os.getpid(),
        user=_user(),
        bound=bound,
    )


def _user() -> str | None:
    """Who submits: the account this process runs as; ``None`` where it has a number and no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None
