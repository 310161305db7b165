"""``wattledger plan``: what would run where, why, in which order and after what; nothing is submitted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.cluster.local import local_nodes
from orchestrator.custody import controller_name
from orchestrator.lifecycle import JobState
from orchestrator.manifest import load_manifests
from orchestrator.plan import Plan, PlannedJob, make_plan
from orchestrator.queue_view import ControllerView, controller_views
from orchestrator.report.figures import UNKNOWN, format_duration
from orchestrator.store import Store
from workers.contract import JobSpec
from workers.errors import InputError
from workers.units import NS_PER_S

COLUMNS = (
    Column(heading="#", numeric=True),
    Column(heading="wave", numeric=True),
    Column(heading="manifest", spare=4),
    Column(heading="kind", spare=3),
    Column(heading="model"),
    Column(heading="adapter", spare=5),
    Column(heading="seed", numeric=True, spare=2),
    Column(heading="accelerator"),
    Column(heading="node", spare=1),
    Column(heading="why there, or what it waits for", folds=True, least=30),
)


def plan(
    manifests: options.ManifestsArgument,
    profile: options.ProfileOption = None,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Show what manifests would run, where and why: on the ledger's cluster, or with --local on this machine's nodes.

    It needs no Ray: the cluster is as its controller saw it last. Without one it is this machine's nodes, too.
    """
    files = load_manifests(manifests, profile=profile)
    ledger = options.home_of(home)
    with contextlib.ExitStack() as stack:
        store = None
        if not (local or simulate) and ledger.state_db.exists():
            store = stack.enter_context(contextlib.closing(client.open_store(ledger)))
        seen_by = None if store is None else _controller(store)
        view = seen_by.cluster if seen_by else client.view_of(local_nodes(tuple(simulate or ())))
        drafts = client.expand_on(files, view, submission_id=None, store=store)
        notes = _told_of(seen_by, store)
    specs = {spec.job_id: spec for draft in drafts for spec in draft.specs}
    made = make_plan(list(specs.values()), view)
    if as_json:
        options.print_json(made.as_dict())
    else:
        where = f"the cluster at {seen_by.record.address}" if seen_by else "a local cluster of this machine"
        _show(made, specs, f"Plan of {', '.join(draft.manifest.name for draft in drafts)} on {where}", notes)
    if made.impossible:
        raise InputError(f"{len(made.impossible)} of {len(made.jobs)} jobs can never run there.")


def _controller(store: Store) -> ControllerView | None:
    """The controller of the ledger; a dead one's view is better than none."""
    views = controller_views(store.controllers(), now_ns=time.time_ns())
    return next((view for view in views if view.record.name == controller_name()), None)


def _told_of(seen_by: ControllerView | None, store: Store | None) -> list[str]:
    """How old what the plan is made of is, and who is ahead."""
    if seen_by is None or store is None:
        return []
    ahead = sum(job.state is JobState.QUEUED for job in store.jobs(unfinished=True))
    ago = format_duration((time.time_ns() - seen_by.record.beat_ns) / NS_PER_S)
    old = f"The controller does not run; the cluster is as it saw it {ago} ago."
    others = f"{ahead} jobs wait in the queue already; they are not in this plan (wattledger status --all)."
    return [*([] if seen_by.is_alive else [old]), *([others] if ahead else [])]


def _show(made: Plan, specs: Mapping[str, JobSpec], title: str, notes: list[str]) -> None:
    jobs = sorted(made.jobs, key=_start)
    numbers = {job.job_id: number for number, job in enumerate(jobs, 1)}
    rows = [
        [
            str(numbers[job.job_id]),
            UNKNOWN if job.wave is None else str(job.wave),
            spec.name,
            spec.kind,
            job.model,
            job.adapter,
            str(job.seed),
            f"{_gang(spec)}{job.accelerator or UNKNOWN}{' (simulated)' if job.simulated else ''}",
            job.node or UNKNOWN,
            _reason(job, spec, numbers),
        ]
        for job, spec in ((job, specs[job.job_id]) for job in jobs)
    ]
    unknown = dict.fromkeys(job.predicted_energy_reason or "" for job in made.jobs)
    print_table(title, COLUMNS, rows, [*notes, *made.notes, *unknown])


def _start(job: PlannedJob) -> tuple[bool, int, int]:
    """Jobs are shown as they start; those that never do come last."""
    return job.wave is None, job.wave or 0, job.order


def _gang(spec: JobSpec) -> str:
    """How many devices, where it is not one: ``2 x 4 x`` is four on each of two nodes."""
    resources = spec.resources
    each = "" if resources.gpus in (0, 1) else f"{resources.gpus:g} x "
    return f"{resources.nodes} nodes, {each}" if resources.nodes > 1 else each


def _reason(job: PlannedJob, spec: JobSpec, numbers: Mapping[str, int]) -> str:
    """Why it cannot run, else what it comes after or waits for, and why it goes where it goes."""
    if job.impossible:
        return job.impossible
    needs = [f"#{numbers[need]}" if need in numbers else need for need in spec.needs]
    told = [f"after {', '.join(needs)}", job.why] if needs else [job.waits or job.why]
    return "; ".join(one for one in told if one) or UNKNOWN
