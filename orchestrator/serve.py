"""``python -m orchestrator.serve``: the controller of a ledger, as an ordinary process.

It drives the ledger's jobs on one Ray cluster until it is told to leave or its parent is gone; attempts go on without
it, and the next one takes them up. When it is ready it prints one line of JSON: ``{"pid", "host", "address",
"targets_url"}``. Whoever wants something of it writes into the ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.accounting.clocks import note_clocks
from orchestrator.cluster.options import ControllerOptions, add_options, options_of
from orchestrator.cluster.port import AgentInfo, Cluster
from orchestrator.controller import Controller
from orchestrator.custody import controller_name, custody
from orchestrator.monitoring.discovery import serve_targets
from orchestrator.store import ControllerRecord, Store
from workers import lifeline
from workers.errors import InputError, LedgerError, UnreachableError, WattledgerError
from workers.home import Home
from workers.telemetry.patience import Watchdog

POLL_S = 0.02
"""Between looks at the ledger while nothing ends: a command waits for so long at most."""
BEAT_S = 1.0
CLOCKS_S = 600.0
LOCK_S = 20.0
"""A controller that was let go needs up to ``LEAVE_S`` to leave; the next one waits for it."""
LEAVE_S = 10.0
BOUND_PATIENCE_S = 60.0
"""A lost node's agent is back within seconds, where it comes back at all."""
SETTLED_EVENTS = 1_000
"""After so many changes the jobs in memory are set aside from the collector of garbage."""
YOUNG_OBJECTS = 20_000
"""Made between two looks of the collector of garbage at the newest; Python's 700 has it look dozens of times in one
decision, whose objects all live to its end."""
HANG_S = 150.0
"""Ray itself gives up on a head that is gone after 60 s and ends the process; a call that is stuck longer hangs."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a controller serves.

    Attributes:
        home: the ledger.
        address: ``host:port`` of the Ray head.
        run_ids: the runs it serves, whose cluster ends with it; none: all that are not bound to a process.
        started: how agents and targets are served.
    """

    home: Home
    address: str
    started: ControllerOptions
    run_ids: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in the ledger; the first is that of its lock."""
        return tuple(map(controller_name, self.run_ids)) or (controller_name(),)


class Server:
    """A controller with what surrounds it: heartbeat, clocks, and what is done when a run ends.

    Args:
        options: what it serves; ``store``: its decisions; ``cluster``: where attempts run.
        targets_url: where Prometheus is told the agents.
        on_ready: called once, after the first heartbeat.
    """

    def __init__(
        self,
        options: ServeOptions,
        store: Store,
        cluster: Cluster,
        *,
        targets_url: str,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._options, self._store, self._cluster, self._targets_url = options, store, cluster, targets_url
        self._on_ready = on_ready
        # Nodes may join a cluster that lives on; one that ends with its runs has all it will ever have.
        patience_s = BOUND_PATIENCE_S if options.run_ids else None
        self._controller = Controller(store, cluster, run_ids=options.run_ids, patience_s=patience_s)
        self._started_ns = time.time_ns()
        self._next_beat_s = self._next_clocks_s = 0.0
        self._seen, self._open = -1, frozenset[str]()
        self._settled = 0
        self._is_leaving = False

    def leave(self) -> None:
        """Make ``run`` return; safe in a signal handler and from any thread."""
        self._is_leaving = True

    def hold(self, on: bool) -> None:
        """Whether to start nothing new; safe in a signal handler."""
        self._controller.is_holding = on

    def run(self) -> None:
        """Take up what runs, say that it is ready, and drive the jobs until told to leave."""
        self._settled = self._store.last_event()
        self._take_note()
        self._controller.adopt()
        gc.freeze()
        self._beat()
        self._on_ready()
        watchdog = Watchdog(HANG_S, story="Ray has not answered for {} s: this controller ends.")
        try:
            while not self._is_leaving:
                self._controller.step(wait_s=POLL_S)
                self._take_note()
                if time.monotonic() >= self._next_clocks_s:
                    self._note_clocks()
                if time.monotonic() >= self._next_beat_s:
                    self._beat()
                watchdog.alive()
        finally:
            watchdog.stop()
        if self._options.run_ids:
            for name in self._options.names:
                self._store.drop_controller(name)

    def _take_note(self) -> None:
        """Where a run's last job has ended, have the agents write what they booked, and say so with a beat."""
        if (event := self._store.last_event()) == self._seen:
            return
        still_open = frozenset(run.run_id for run in self._store.runs(unfinished=True))
        has_ended = bool(self._open - still_open)
        self._seen, self._open = event, still_open
        if event - self._settled >= SETTLED_EVENTS:
            self._settle()
        if has_ended:
            self._cluster.flush()
            self._note_clocks()
            self._beat()

    def _settle(self) -> None:
        """Set aside what lives long from the collector of garbage.

        It would else walk over all jobs that wait, for 0.6 s where they are 10,000, in the middle of a decision. They
        hold no circles, so that one that is dropped goes at once all the same.
        """
        gc.collect()
        gc.freeze()
        self._settled = self._seen

    def _note_clocks(self) -> None:
        self._next_clocks_s = time.monotonic() + CLOCKS_S
        note_clocks(self._options.home, self._cluster.clocks())

    def _beat(self) -> None:
        """Tell the ledger that this controller lives, and what the cluster has; a full disk is told by others."""
        self._next_beat_s = time.monotonic() + BEAT_S
        said = ControllerRecord(
            name="",
            host=socket.gethostname(),
            pid=os.getpid(),
            address=self._options.address,
            targets_url=self._targets_url,
            started_ns=self._started_ns,
            beat_ns=time.time_ns(),
            trouble=self._controller.trouble,
            cluster=self._controller.look().to_json(),
        )
        with contextlib.suppress(LedgerError):
            for name in self._options.names:
                self._store.note_controller(dataclasses.replace(said, name=name))


@contextlib.contextmanager
def _opened(options: ServeOptions) -> Iterator[Server]:
    """Everything a controller needs, let go in order.

    Raises:
        InputError: another controller serves this ledger, or the targets cannot be served there.
        UnreachableError: no cluster.
    """
    # Imported here: it takes a second, which bad options should not cost.
    from orchestrator.cluster.ray_cluster import RayCluster  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        if not stack.enter_context(custody(options.home, options.names[0], wait_s=LOCK_S)):
            raise InputError(
                f"another controller serves the ledger {options.home.root}. End it with `wattledger down`, or name "
                "another folder with --home or WATTLEDGER_HOME."
            )
        started, joined = options.started, list[RayCluster]()
        # A port that is taken is told before anything is started on the cluster.
        serving = serve_targets(lambda: _agents_of(joined), listen=started.targets_listen, port=started.targets_port)
        targets_url = f"{stack.enter_context(serving).url}/"
        cluster = RayCluster(
            options.address,
            home=options.home,
            agent_listen=started.agent_listen,
            agent_access=started.agent_access,
            program=started.program,
        )
        stack.callback(cluster.close)
        if options.run_ids:
            stack.callback(cluster.stop_agents)
        joined.append(cluster)
        store = stack.enter_context(contextlib.closing(Store(options.home.state_db)))
        ready = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "address": options.address,
            "targets_url": targets_url,
        }
        yield Server(
            options,
            store,
            cluster,
            targets_url=targets_url,
            on_ready=lambda: print(json.dumps(ready), flush=True),
        )


def _agents_of(joined: Sequence[Cluster]) -> tuple[AgentInfo, ...]:
    if not joined:
        raise UnreachableError("the cluster is only being joined. Ask again.")
    return joined[0].agents()


def parse(arguments: Sequence[str]) -> tuple[ServeOptions, int | None]:
    """Command line to options and the lifeline's descriptor."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.serve", description="Drive a ledger's jobs.")
    parser.add_argument("--home", type=Path, default=Home.default().root, help="ledger folder (env WATTLEDGER_HOME)")
    parser.add_argument("--address", required=True, help="host:port of the Ray head")
    parser.add_argument("--run", action="append", default=[], help="serve this run alone; the agents end with it")
    add_options(parser)
    parser.add_argument(lifeline.FLAG, type=int, help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    options = ServeOptions(
        home=Home(found.home), address=found.address, run_ids=tuple(found.run), started=options_of(found)
    )
    return options, found.lifeline_fd


def _leave_in_time() -> None:
    """The parent is gone: leave as if told to, also where a call into Ray is stuck."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEAVE_S)
    os._exit(UnreachableError.exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to leave; gives the exit code, which is not 0 when the cluster was lost."""
    try:
        options, lifeline_fd = parse(sys.argv[1:] if arguments is None else arguments)
        gc.set_threshold(YOUNG_OBJECTS)
        if lifeline_fd is not None:
            lifeline.watch(lifeline_fd, _leave_in_time)
        with _opened(options) as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.leave())
            signal.signal(signal.SIGUSR1, lambda *_: server.hold(True))
            signal.signal(signal.SIGUSR2, lambda *_: server.hold(False))
            server.run()
    except (WattledgerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code if isinstance(error, WattledgerError) else UnreachableError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
