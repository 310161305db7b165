"""``run``: submit, follow to the end, and account; on a cluster that runs, or on one of this machine's own."""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.accounting.rows import Account
from orchestrator.accounting.server_access import OPEN, ServerAccess
from orchestrator.client.controllers import check_address, live_controller, serving_controller, up
from orchestrator.client.following import Followed
from orchestrator.client.ledger import accounts_now
from orchestrator.client.observer import Observer
from orchestrator.client.submission import Submission, checked_plan, enter, expand_on, new_run_id
from orchestrator.client.target import Target
from orchestrator.cluster.local import local_cluster
from orchestrator.custody import ORPHANED, controller_name, custody, settle_orphans
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.manifest import load_manifests
from orchestrator.monitoring.server import LocalPrometheus, find_prometheus
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import Store
from workers import lifeline
from workers.errors import InputError, UnreachableError
from workers.home import Home
from workers.telemetry.agent_access import AgentAccess

STOPPED = "the run was cancelled"
LEAVE_S = 20.0
LOST_S = 120.0
"""A local cluster's controller that is silent for so long does not come back: its cluster is gone."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended; ``accounts`` are its jobs' rows in order, ``cancelled`` whether it was stopped."""

    run_id: str
    accounts: tuple[Account, ...]
    cancelled: bool

    @property
    def exit_code(self) -> int:
        """0 when every job succeeded, 130 when the run was cancelled, else 1."""
        if self.cancelled:
            return 130
        return 0 if all(account.row.state == JobState.SUCCEEDED for account in self.accounts) else 1


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where jobs go: the cluster as its controller sees it, and the Prometheus that watches it, if any."""

    view: ClusterView
    prometheus_url: str | None
    prometheus_access: ServerAccess = OPEN


def run(
    paths: Sequence[Path],
    target: Target,
    *,
    home: Home,
    observer: Observer,
    submission_id: str | None = None,
    profile: str | None = None,
) -> tuple[RunResult, ...]:
    """Submit manifests and see them through. ``KeyboardInterrupt`` cancels what is left and still reports.

    On a cluster the jobs are the controller's, and go on when this process is killed; on a local one they end with it.
    The same manifests, ``profile`` and ``submission_id`` again run nothing twice: the results are those of the first
    time.

    Raises:
        ManifestError: a manifest has problems; nothing was submitted.
        InputError: a job that no node could ever run, or a local run of this very submission goes on elsewhere;
            nothing was submitted.
        UnreachableError: no cluster, or a local one is lost.
    """
    files = load_manifests(paths, profile=profile)
    run_ids = {file.manifest.name: new_run_id(file.manifest.name) for file in files}
    target.controller.agent_access.check_exposure(target.controller.agent_listen)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store(home.state_db)))
        settle_orphans(store, home)
        if target.local is None:
            site = _cluster_site(store, target, home, observer)
        else:
            # Let go of last: what is left of the jobs is settled when nobody sees to them any more.
            stack.enter_context(_bound(store, home, list(run_ids.values())))
            site = _local_site(stack, store, target, list(run_ids.values()), home=home, observer=observer)
        drafts = expand_on(files, site.view, submission_id=submission_id, store=store)
        observer.planned(checked_plan([spec for draft in drafts for spec in draft.specs], site.view))
        names = [run_ids[draft.manifest.name] for draft in drafts]
        submitted = enter(store, home, drafts, names, bound=target.local is not None)
        _tell_known(store, submitted, observer)
        followed = Followed(store, home, [each.run_id for each in submitted], observer=observer)
        interrupted = _see_through(followed, observer, patience_s=math.inf if target.local is None else LOST_S)
        observer.say("accounting")
        followed.until_booked()
        return tuple(_result(site, home, each, followed.jobs, interrupted=interrupted) for each in submitted)


def _cluster_site(store: Store, target: Target, home: Home, observer: Observer) -> Site:
    """The cluster whose controller serves this ledger; it is raised where there is none."""
    running = live_controller(store)
    if running is None:
        observer.say("no controller serves this ledger yet; one is started, and stays: wattledger down ends it")
        up(home, address=target.address, options=target.controller, observer=observer)
    else:
        check_address(running, target.address, home)
    record = serving_controller(store, home)
    observer.say(f"Prometheus on this host can follow the agents meanwhile: http_sd at {record.targets_url}")
    return Site(
        view=ClusterView.from_json(record.cluster),
        prometheus_url=target.prometheus_url,
        prometheus_access=target.prometheus_access,
    )


def _local_site(
    stack: contextlib.ExitStack, store: Store, target: Target, run_ids: Sequence[str], *, home: Home, observer: Observer
) -> Site:
    """A cluster of this machine's own with a controller for these runs, which end with this process."""
    cluster = stack.enter_context(local_cluster(target.local or (), say=observer.say))
    serving = [f"--run={run_id}" for run_id in run_ids]
    arguments = ["--home", str(home.root), "--address", cluster.address, *serving, *target.controller.flags()]
    _serve(stack, arguments, log=home.run / f"{controller_name(run_ids[0])}.log")
    record = live_controller(store, controller_name(run_ids[0]))
    assert record is not None, "it beats before it says that it is ready"
    return Site(
        view=ClusterView.from_json(record.cluster),
        prometheus_url=_watch(stack, record.targets_url, target.controller.agent_access, observer),
    )


def _serve(stack: contextlib.ExitStack, arguments: Sequence[str], *, log: Path) -> None:
    """Keep a controller until the stack is left.

    Raises:
        UnreachableError: it does not come up; says what it said.
    """

    def start() -> lifeline.Child:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            return lifeline.spawn("orchestrator.serve", arguments, stdout=subprocess.PIPE, stderr=errors)

    said: list[bytes] = []
    child = lifeline.KeptChild(start, said.append)
    stack.callback(log.unlink, missing_ok=True)
    stack.callback(child.release, timeout_s=LEAVE_S)
    if not said[0]:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        kind = InputError if child.process.wait() == InputError.exit_code else UnreachableError
        raise kind(f"the controller did not start: {lines[-1] if lines else 'it said nothing'}")


def _watch(stack: contextlib.ExitStack, targets_url: str, access: AgentAccess, observer: Observer) -> str | None:
    """A private Prometheus over the cluster's agents; ``None``, said aloud, where the program is not installed."""
    if find_prometheus() is None:
        observer.say("no prometheus program is installed; the energy log alone serves (Debian: apt install prometheus)")
        return None
    observer.say("starting Prometheus")
    server = stack.enter_context(LocalPrometheus(discovery_url=targets_url, access=access))
    server.wait_for_targets()
    return server.url


@contextlib.contextmanager
def _bound(store: Store, home: Home, run_ids: Sequence[str]) -> Iterator[None]:
    """Hold runs that end with this process, so that others can tell; what has not ended by then has failed."""
    with contextlib.ExitStack() as stack:
        for run_id in run_ids:
            stack.enter_context(custody(home, run_id))
        try:
            yield
        finally:
            for run_id in run_ids:
                store.finish(run_id, JobState.FAILED, reason=ORPHANED, now_ns=time.time_ns())


def _tell_known(store: Store, submitted: Sequence[Submission], observer: Observer) -> None:
    """Say which jobs were submitted before.

    Raises:
        InputError: they run, and are bound to another process.
    """
    bound = {run.run_id for run in store.runs(unfinished=True) if run.bound}
    for each in submitted:
        known = len(each.job_ids) - each.new
        if not each.new and each.run_id in bound:
            raise InputError(
                f"{each.run_id} is this very submission, and runs now. Follow it: wattledger status {each.run_id}"
            )
        if not each.new and any(run.run_id == each.run_id for run in store.runs(unfinished=True)):
            observer.say(f"{each.run_id} is this very submission, and runs already; it is followed")
        elif not each.new:
            observer.say(f"{each.run_id} was this very submission; it does not run again, and this is its report")
        elif known:
            observer.say(f"{known} of {len(each.job_ids)} jobs were submitted before and do not run again")


def _see_through(followed: Followed, observer: Observer, *, patience_s: float) -> bool:
    """Follow jobs to their ends; gives whether they were cancelled on the way."""
    try:
        followed.until_over(patience_s=patience_s)
    except KeyboardInterrupt:
        followed.stop(STOPPED)
        observer.say("cancelling")
        followed.until_over(patience_s=patience_s)
        return True
    return False


def _result(
    site: Site, home: Home, submitted: Submission, jobs: Sequence[JobRecord], *, interrupted: bool
) -> RunResult:
    theirs = [job for job in jobs if job.run_id == submitted.run_id]
    was_cancelled = not submitted.new and any(job.state is JobState.CANCELLED for job in theirs)
    rows = accounts_now(home, theirs, prometheus_url=site.prometheus_url, access=site.prometheus_access)
    return RunResult(run_id=submitted.run_id, accounts=rows, cancelled=interrupted or was_cancelled)
