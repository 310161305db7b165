"""Which controller sees to a ledger, and how one is had on a cluster and let go again."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.parse
from collections.abc import Sequence

from orchestrator.client.observer import Observer
from orchestrator.cluster.options import ControllerOptions
from orchestrator.custody import controller_name
from orchestrator.lifecycle import JobRecord, Stop
from orchestrator.monitoring.discovery import read_targets
from orchestrator.queue_view.controllers import ControllerView, controller_views
from orchestrator.store import ControllerRecord, Store
from workers.errors import InputError, UnreachableError
from workers.home import Home
from workers.telemetry.access import is_loopback

AUTO = "auto"
"""The Ray cluster that runs on this machine."""
POLL_S = 0.1
LOWERED = "the control plane was taken down"


def live_controller(store: Store, name: str = controller_name()) -> ControllerRecord | None:
    """The controller of that name, if its last heartbeat is young enough."""
    return next((view.record for view in _views(store, name) if view.is_alive), None)


def serving_controller(store: Store, home: Home) -> ControllerRecord:
    """The controller that new jobs are for.

    Raises:
        UnreachableError: none lives, or it serves the ledger on another host, whose SQLite file must not be opened
            from here.
    """
    record = live_controller(store)
    if record is None:
        told = [view.sentence(time.time_ns()) for view in _views(store)]
        raise UnreachableError(
            f"no controller serves the ledger {home.root}{f' ({told[0]})' if told else ''}. Start one on a Ray "
            "cluster: wattledger up. Or run on a cluster of this machine's own: wattledger run --local"
        )
    if record.host != socket.gethostname():
        raise UnreachableError(
            f"the ledger {home.root} is served on {record.host}, and is to be used there alone. Run this there: "
            "ray job submit --address http://HEAD:8265 -- python -m orchestrator …"
        )
    return record


def _views(store: Store, name: str = controller_name()) -> list[ControllerView]:
    views = controller_views(store.controllers(), now_ns=time.time_ns())
    return [view for view in views if view.record.name == name]


def up(
    home: Home, *, address: str | None = None, options: ControllerOptions | None = None, observer: Observer
) -> ControllerRecord:
    """Have a controller, and an agent on every node with GPUs; twice does no harm, and tells of the one that runs.

    Args:
        home: the ledger, made if need be; on a disk of the cluster's head.
        address: ``host:port`` of the head; ``None``: of the cluster that serves this ledger, else this machine's.
        options: how a new controller is started; one that runs keeps its own.
        observer: is told what does not become as asked.

    Raises:
        UnreachableError: no cluster, or the controller does not come up.
        InputError: another cluster's controller serves this ledger, or the options cannot be had.
    """
    # Imported here: loading ray takes a second that no other verb should pay, and it reads its token when loaded.
    from orchestrator.cluster.control import raise_controller  # noqa: PLC0415

    options = options or ControllerOptions()
    options.agent_access.check_exposure(options.agent_listen)
    with contextlib.closing(Store(home.state_db)) as store:
        running = live_controller(store)
        if running is not None:
            check_address(running, address, home)
        info = raise_controller(address or (running.address if running else AUTO), home, options)
        record = live_controller(store)
        if record is None:
            raise UnreachableError(f"the controller came up and went. Read {home.run / 'controller.log'}")
    if not info.is_new:
        _tell_kept(record, options, observer)
    return record


def check_address(running: ControllerRecord, address: str | None, home: Home) -> None:
    """One ledger, one cluster.

    Raises:
        InputError: another is asked for than the one that serves the ledger.
    """
    if address not in (None, AUTO) and not _is_same(str(address), running.address):
        raise InputError(
            f"the ledger {home.root} is served by the cluster at {running.address}, not {address}. Leave --address "
            "out, name another ledger with --home, or end that one first: wattledger down"
        )


def _is_same(one: str, other: str) -> bool:
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if port != other_port or host == other_host:
        return port == other_port
    with contextlib.suppress(OSError):
        return is_loopback(host) or socket.gethostbyname(host) == socket.gethostbyname(other_host)
    return False


def _tell_kept(record: ControllerRecord, options: ControllerOptions, observer: Observer) -> None:
    """Say what was asked for and is not so, since controller or agents were started before."""
    port = urllib.parse.urlsplit(record.targets_url).port
    if options.targets_port not in (0, port):
        observer.say(
            f"the controller was started before and tells the agents at {record.targets_url}; to have it use port "
            f"{options.targets_port}: wattledger down, then wattledger up"
        )
    agents = {agent.node: urllib.parse.urlsplit(agent.metrics_url) for agent in read_targets(record.targets_url)}
    kept = [node for node, url in agents.items() if is_loopback(url.hostname or "")]
    if kept and not is_loopback(options.agent_listen):
        observer.say(
            f"the agent of {', '.join(kept)} was started before and is reached from its own host alone; to have it "
            f"listen on {options.agent_listen}: wattledger down, then wattledger up"
        )
    clear = [node for node, url in agents.items() if url.scheme == "http"]
    if clear and options.agent_access.tls_cert is not None:
        observer.say(
            f"the agent of {', '.join(clear)} was started before and serves without TLS; to have it use "
            f"{options.agent_access.tls_cert}: wattledger down, then wattledger up"
        )


def down(home: Home, *, address: str | None = None, cancel: bool = False, observer: Observer) -> bool:
    """End a ledger's controller and agents; whether there was anything to end. Jobs that wait stay in the ledger.

    Args:
        home: the ledger.
        address: of the head; ``None``: of the cluster that serves this ledger.
        cancel: stop jobs that run first, instead of refusing.
        observer: is told what is waited for.

    Raises:
        InputError: jobs run, and ``cancel`` was not given; all goes on.
        UnreachableError: the cluster does not answer.
    """
    if not home.state_db.exists():
        return False
    with contextlib.closing(Store(home.state_db)) as store:
        records = [view.record for view in _views(store)]
        if not records and address is None:
            return False
        from orchestrator.cluster.control import lower_controller  # noqa: PLC0415 - as in up

        def before() -> None:
            _clear(store, cancel=cancel, observer=observer)

        was_there = lower_controller(address or records[0].address, home, before=before)
        store.drop_controller(controller_name())
        return was_there


def _clear(store: Store, *, cancel: bool, observer: Observer) -> None:
    """See that no job of the controller's runs any more; it starts no new ones meanwhile."""
    running = _running(store)
    if running and not cancel:
        names = ", ".join(job.job_id for job in running[:5])
        count = "1 job runs" if len(running) == 1 else f"{len(running)} jobs run"
        raise InputError(
            f"{count}: {names}{', …' if len(running) > 5 else ''}. Wait for them (wattledger status), "
            "or have them cancelled first: wattledger down --cancel"
        )
    for job in running:
        store.request_stop(job.job_id, Stop.CANCEL, reason=LOWERED, now_ns=time.time_ns())
    if running:
        observer.say(f"waiting for {', '.join(job.job_id for job in running)} to end")
    while _running(store) and live_controller(store) is not None:
        time.sleep(POLL_S)


def _running(store: Store) -> Sequence[JobRecord]:
    """Jobs that hold a place by the controller's doing."""
    bound = {run.run_id for run in store.runs(unfinished=True) if run.bound}
    return [job for job in store.jobs(unfinished=True) if job.state.holds_place and job.run_id not in bound]
