"""``wattledger plan``: what would run where, and why; nothing is submitted."""

from __future__ import annotations

import contextlib

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.cluster.local import local_nodes
from orchestrator.manifest import load_manifests
from orchestrator.plan import Plan, make_plan
from orchestrator.report.figures import UNKNOWN
from orchestrator.scheduling.snapshot import ClusterView
from workers.errors import InputError


def plan(
    manifests: options.ManifestsArgument,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Show what manifests would run, where and why: on the ledger's cluster, or with --local on this machine's nodes.

    Without a controller (wattledger up) it is this machine's nodes, too.
    """
    files = load_manifests(manifests)
    view, where, store = None, "a local cluster of this machine", None
    with contextlib.ExitStack() as stack:
        ledger = options.home_of(home)
        if not (local or simulate) and ledger.state_db.exists():
            store = stack.enter_context(contextlib.closing(client.open_store(ledger)))
            record = client.live_controller(store)
            if record is not None:
                view, where = ClusterView.from_json(record.cluster), f"the cluster at {record.address}"
        view = view or client.view_of(local_nodes(tuple(simulate or ())))
        drafts = client.expand_on(files, view, submission_id=None, store=store)
    made = make_plan([spec for draft in drafts for spec in draft.specs], view)
    if as_json:
        options.print_json(made.as_dict())
    else:
        _show(made, f"Plan of {', '.join(draft.manifest.name for draft in drafts)} on {where}")
    if made.impossible:
        raise InputError(f"{len(made.impossible)} of {len(made.jobs)} jobs can never run there.")


def _show(made: Plan, title: str) -> None:
    columns = [
        Column(heading="#", numeric=True),
        Column(heading="wave", numeric=True),
        Column(heading="model"),
        Column(heading="adapter", spare=2),
        Column(heading="seed", numeric=True),
        Column(heading="accelerator"),
        Column(heading="node", spare=1),
        Column(heading="why there, or what it waits for", folds=True),
    ]
    rows = [
        [
            str(job.order),
            UNKNOWN if job.wave is None else str(job.wave),
            job.model,
            job.adapter,
            str(job.seed),
            f"{job.accelerator or UNKNOWN}{' (simulated)' if job.simulated else ''}",
            job.node or UNKNOWN,
            job.impossible or job.waits or job.why or UNKNOWN,
        ]
        for job in made.jobs
    ]
    print_table(title, columns, rows, [*made.notes, *dict.fromkeys(j.predicted_energy_reason or "" for j in made.jobs)])
