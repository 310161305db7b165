"""The Python API: the verbs of the command line as functions, without a terminal.

Each long one takes an ``Observer`` that is told what happens; the command line's draws progress bars.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.accounting.budgets import BudgetStatus, budget_statuses
from orchestrator.accounting.clocks import note_clocks
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.accounting.server_access import OPEN, ServerAccess
from orchestrator.carbon.series_file import keep_series
from orchestrator.carbon.sources import HourlySources
from orchestrator.cluster.local import LocalNode, local_cluster
from orchestrator.cluster.port import Cluster
from orchestrator.controller import Controller
from orchestrator.custody import custody, settle_orphans
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.manifest import Manifest, expand, files_of, load_manifest
from orchestrator.monitoring.discovery import serve_targets
from orchestrator.monitoring.server import LocalPrometheus, find_prometheus
from orchestrator.plan import Plan, make_plan
from orchestrator.scheduling.snapshot import ClusterView, NodeView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.errors import InputError
from workers.home import Home
from workers.telemetry.access import is_loopback
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess
from workers.units import NS_PER_S

if TYPE_CHECKING:
    from orchestrator.cluster.ray_cluster import RayCluster

POLL_S = 0.25
LOOPBACK = "127.0.0.1"
PROMETHEUS_VARIABLE = "WATTLEDGER_PROMETHEUS_URL"
SETTLE_NS = 2 * NS_PER_S
"""How long a report of a job that just ended waits, so that the scrape after its end is there too."""


class Observer(Protocol):
    """Is told how a run goes; called from the thread that runs it."""

    def say(self, text: str) -> None:
        """Something happened that a person may want to know."""
        ...

    def planned(self, plan: Plan) -> None:
        """This is what will run."""
        ...

    def progressed(self, home: Home, jobs: Sequence[JobRecord]) -> None:
        """So the jobs stand now; called several times a second."""
        ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run goes.

    Attributes:
        address: ``host:port`` of a Ray head, or ``auto``; not used with ``local``.
        local: nodes of a local cluster to start for this run; ``None`` joins one that runs.
        prometheus_url: a server that scrapes the agents; with ``local`` a private one is started instead.
        prometheus_access: the secrets and certificates that server wants.
        agent_listen: address on which agents that are started serve their metrics; ``agent_access``: who may read them.
        targets_listen: address on which Prometheus is told the agents; ``targets_port``: its port, 0 takes any.
    """

    address: str = "auto"
    local: tuple[LocalNode, ...] | None = None
    prometheus_url: str | None = None
    prometheus_access: ServerAccess = OPEN
    agent_listen: str = LOOPBACK
    agent_access: AgentAccess = UNPROTECTED
    targets_listen: str = LOOPBACK
    targets_port: int = 0


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


def run(path: Path, target: Target, *, home: Home, observer: Observer, submission_id: str | None = None) -> RunResult:
    """Submit a manifest and see it through. ``KeyboardInterrupt`` cancels what is left and still reports.

    The same manifest and ``submission_id`` again run nothing twice: the result is that of the first time.

    Raises:
        ManifestError: the manifest has problems; nothing was submitted.
        InputError: a job that no node could ever run, or this very submission still runs; nothing was submitted.
        UnreachableError: no cluster.
    """
    manifest = load_manifest(path)
    with open_site(target, home=home, observer=observer) as site:
        if target.local is None:
            observer.say(f"Prometheus on this host can follow the agents meanwhile: http_sd at {site.targets_url}")
        specs = expand_on(manifest, site.cluster.view(), submission_id=submission_id)
        observer.planned(checked_plan(specs, site.cluster.view()))
        with contextlib.closing(Store(home.state_db)) as store:
            settle_orphans(store, home)
            record = _record(manifest, path)
            keep_series(home, record.run_id, path.parent, files_of(specs))
            note_clocks(home, site.cluster.clocks())
            with custody(home, record.run_id):
                new = store.submit(record, specs)
                if not new:
                    return _submitted_before(store, site, specs, home, observer)
                if new < len(specs):
                    observer.say(f"{len(specs) - new} of {len(specs)} jobs were submitted before and do not run again")
                cancelled = _see_through(store, site.cluster, record.run_id, home, observer)
            observer.say("accounting")
            site.cluster.flush()
            note_clocks(home, site.cluster.clocks())
            rows = site.accounts(home, store, record.run_id)
            return RunResult(run_id=record.run_id, accounts=rows, cancelled=cancelled)


def expand_on(manifest: Manifest, view: ClusterView, *, submission_id: str | None) -> tuple[JobSpec, ...]:
    """The manifest's jobs on this cluster; a submission without an id is a new one."""
    return expand(
        manifest, accelerator_types=view.accelerator_types, submission_id=submission_id or secrets.token_hex(8)
    )


def checked_plan(specs: Sequence[JobSpec], view: ClusterView) -> Plan:
    """The plan of jobs that can all run.

    Raises:
        InputError: some never could; all are named.
    """
    plan = make_plan(specs, view)
    if plan.impossible:
        reasons = dict.fromkeys(f"  {job.model}: {job.impossible}" for job in plan.impossible)
        raise InputError("\n".join(["some jobs can never run here; nothing was submitted.", *reasons]))
    return plan


def view_of(nodes: Sequence[LocalNode]) -> ClusterView:
    """What a local cluster of ``nodes`` would offer, without starting it."""
    return ClusterView(
        nodes=tuple(
            NodeView(
                node_id=f"local-{number}",
                name=f"local-{number}",
                accelerator=node.accelerator,
                simulated=node.simulated,
                gpus_total=1,
                gpus_free=1,
                cpus_total=1.0,
                cpus_free=1.0,
                memory_free_gb=None,
            )
            for number, node in enumerate(nodes, 1)
        )
    )


@dataclass(frozen=True, kw_only=True)
class Site:
    """A cluster, where Prometheus is told its agents (``http_sd``), and the Prometheus that watches it, if any."""

    cluster: Cluster
    targets_url: str
    prometheus_url: str | None
    prometheus_access: ServerAccess = OPEN

    def accounts(self, home: Home, store: Store, run_id: str) -> tuple[Account, ...]:
        """The books of a run, with Prometheus as the witness."""
        if self.prometheus_url is not None:
            _wait_until(_last_end_ns(store.jobs(run_id=run_id)) + SETTLE_NS)
        jobs = store.jobs(run_id=run_id)
        return accounts(home, jobs, prometheus_url=self.prometheus_url, access=self.prometheus_access)


def accounts(
    home: Home, jobs: Sequence[JobRecord], *, prometheus_url: str | None, access: ServerAccess = OPEN
) -> tuple[Account, ...]:
    """Rows of ``jobs`` from the logs; Prometheus, if named, is asked as the witness."""
    with contextlib.ExitStack() as stack:
        prometheus = None
        if prometheus_url is not None:
            prometheus = PrometheusClient(prometheus_url, access=access)
            stack.callback(prometheus.close)
        sources = HourlySources(home)
        stack.callback(sources.close)
        return build_accounts(home, jobs, prometheus=prometheus, sources=sources)


def budgets(home: Home) -> tuple[BudgetStatus, ...]:
    """Every budget of the ledger as it stands now.

    Raises:
        InputError: there is no ledger yet.
    """
    with contextlib.closing(open_store(home)) as store:
        given, jobs = store.budgets(), store.jobs()
    with contextlib.closing(HourlySources(home)) as sources:
        return budget_statuses(home, jobs, given, now_ns=time.time_ns(), sources=sources)


@contextlib.contextmanager
def open_site(target: Target, *, home: Home, observer: Observer) -> Iterator[Site]:
    """Join a cluster, or start one of this machine's own and end it afterwards.

    While it is open, ``targets_url`` tells Prometheus which agents there are, nodes that come and go included.

    Raises:
        UnreachableError: there is none, or it does not start.
        InputError: the targets cannot be served at that address and port, or a password would travel in clear.
    """
    target.agent_access.check_exposure(target.agent_listen)
    with contextlib.ExitStack() as stack:
        address = target.address
        if target.local is not None:
            address = stack.enter_context(local_cluster(target.local, say=observer.say)).address
        cluster = _join(stack, address, home, target)
        if target.local is not None:
            stack.callback(cluster.stop_agents)
        _tell_unheard(cluster, target, observer)
        serving = serve_targets(cluster.agents, listen=target.targets_listen, port=target.targets_port)
        targets_url = f"{stack.enter_context(serving).url}/"
        if target.local is not None:
            watched = _watch(stack, targets_url, target.agent_access, observer)
            yield Site(cluster=cluster, targets_url=targets_url, prometheus_url=watched)
            return
        yield Site(
            cluster=cluster,
            targets_url=targets_url,
            prometheus_url=target.prometheus_url,
            prometheus_access=target.prometheus_access,
        )


def _join(stack: contextlib.ExitStack, address: str, home: Home, target: Target) -> RayCluster:
    # Imported here: loading ray takes a second that no other verb should pay, and it reads its token when loaded.
    from orchestrator.cluster.ray_cluster import RayCluster  # noqa: PLC0415

    cluster = RayCluster(address, home=home, agent_listen=target.agent_listen, agent_access=target.agent_access)
    stack.callback(cluster.close)
    return cluster


def _tell_unheard(cluster: Cluster, target: Target, observer: Observer) -> None:
    """Say which agents, started before, keep to their own host or serve in clear though they were not to."""
    urls = {agent.node: urllib.parse.urlsplit(agent.metrics_url) for agent in cluster.agents()}
    kept = [node for node, url in urls.items() if is_loopback(url.hostname or "")]
    if kept and not is_loopback(target.agent_listen):
        observer.say(
            f"the agent of {', '.join(kept)} was started before and is reached from its own host alone; to have it "
            f"listen on {target.agent_listen}, stop it first"
        )
    clear = [node for node, url in urls.items() if url.scheme == "http"]
    if clear and target.agent_access.tls_cert is not None:
        observer.say(
            f"the agent of {', '.join(clear)} was started before and serves without TLS; to have it use "
            f"{target.agent_access.tls_cert}, stop it first"
        )


def _watch(stack: contextlib.ExitStack, targets_url: str, access: AgentAccess, observer: Observer) -> str | None:
    """A private Prometheus over the cluster's agents; ``None``, said aloud, where the program is not installed."""
    if find_prometheus() is None:
        observer.say("no prometheus program is installed; the energy log alone serves (Debian: apt install prometheus)")
        return None
    observer.say("starting Prometheus")
    server = stack.enter_context(LocalPrometheus(discovery_url=targets_url, access=access))
    server.wait_for_targets()
    return server.url


def _record(manifest: Manifest, path: Path) -> RunRecord:
    now_ns = time.time_ns()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_ns // NS_PER_S))
    return RunRecord(
        run_id=f"{manifest.name}-{stamp}-{secrets.token_hex(2)}",
        name=manifest.name,
        manifest=path.read_text(encoding="utf-8"),
        submitted_ns=now_ns,
        host=socket.gethostname(),
        pid=os.getpid(),
        user=_user(),
    )


def _user() -> str | None:
    """Who submits: the account this process runs as; ``None`` where it has a number and no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def _submitted_before(store: Store, site: Site, specs: Sequence[JobSpec], home: Home, observer: Observer) -> RunResult:
    """How the same submission ended the first time.

    Raises:
        InputError: it has not ended: another process runs it.
    """
    run_id = store.job(specs[0].job_id).run_id
    jobs = store.jobs(run_id=run_id)
    if not all(job.state.is_final for job in jobs):
        raise InputError(f"{run_id} is this very submission, and runs now. Follow it: wattledger status {run_id}")
    observer.say(f"{run_id} was this very submission; it does not run again, and this is its report")
    cancelled = any(job.state is JobState.CANCELLED for job in jobs)
    return RunResult(run_id=run_id, accounts=site.accounts(home, store, run_id), cancelled=cancelled)


def _see_through(store: Store, cluster: Cluster, run_id: str, home: Home, observer: Observer) -> bool:
    """Drive the run to its end; gives whether it was cancelled on the way."""
    controller = Controller(store, cluster, run_id=run_id)
    cancelled = False
    try:
        while controller.step(wait_s=POLL_S):
            observer.progressed(home, store.jobs(run_id=run_id))
    except KeyboardInterrupt:
        cancelled = True
        observer.say("cancelling")
        controller.cancel()
    except BaseException:
        controller.cancel("the controller failed")
        raise
    observer.progressed(home, store.jobs(run_id=run_id))
    return cancelled


def find_run(store: Store, name: str | None) -> RunRecord:
    """A run by id, by manifest name (its latest), or the latest of all.

    Raises:
        InputError: there is none; lists those there are.
    """
    runs = store.runs()
    if not runs:
        raise InputError("this ledger has no runs yet. Start one: wattledger run manifests/quickstart.yaml --local")
    for run in runs:
        if name is None or name in (run.run_id, run.name):
            return run
    known = ", ".join(run.run_id for run in runs[:10])
    raise InputError(f"no run is called {name!r}. The latest are: {known}.")


def open_store(home: Home) -> Store:
    """The ledger for reading.

    Raises:
        InputError: there is none yet.
    """
    if not home.state_db.exists():
        raise InputError(
            f"there is no ledger in {home.root}. Start a run, or name another folder with --home or WATTLEDGER_HOME."
        )
    return Store(home.state_db)


def prometheus_url(given: str | None) -> str | None:
    """The server named on the command line, else by the environment."""
    return given or os.environ.get(PROMETHEUS_VARIABLE) or None


def _last_end_ns(jobs: Sequence[JobRecord]) -> int:
    return max((attempt.ended_ns or 0 for job in jobs for attempt in job.attempts), default=0)


def _wait_until(time_ns: int) -> None:
    while (left_ns := time_ns - time.time_ns()) > 0:
        time.sleep(min(left_ns / NS_PER_S, 1.0))
