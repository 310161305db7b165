"""``python -m workers.agent``: meters one node until it is told to stop, or its parent is gone.

One process, four threads: the sampler (this one), the lease server, the exporter and the lifeline. It never touches a
job: it reads devices, keeps leases, writes the energy log and serves ``/metrics``. When it is ready it prints one line
of JSON: ``{"node", "socket", "metrics_url", "pid", "devices", "unmetered"}``; the GPUs come first among the devices.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workers import lifeline
from workers.contract import Method
from workers.errors import InputError, MeterError, WattledgerError
from workers.home import Home
from workers.powercap.notes import LimitNotes
from workers.telemetry.access import OPEN, Access, access_of, add_flags
from workers.telemetry.bookkeeper import Bookkeeper
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.exporter import AgentCollector, serve
from workers.telemetry.host import WISHES, HostMeters, open_host_meters
from workers.telemetry.journal import State
from workers.telemetry.meter import PartialMeter, PowerMeter
from workers.telemetry.node import NodeMeter
from workers.telemetry.patience import HANG_S, Watchdog
from workers.telemetry.procfs import boot_id
from workers.telemetry.protocol import Message, find_notes, socket_path
from workers.telemetry.replay import ReplayMeter
from workers.telemetry.server import LeaseServer, hold_node, wait_until_free
from workers.telemetry.settle import ChildSettler
from workers.telemetry.simulated import SimulatedMeter
from workers.telemetry.snapshot import NodeSnapshot, without_figures
from workers.telemetry.state import NodeState, from_json, told_from_json
from workers.telemetry.takeover import Told

METER_HELP = "auto, nvml, simulated:TYPE[,TYPE...] or replay:PATH[,PATH...] (default auto)"
CLOSELY_S = 0.003
"""Time between looks around an edge: by so much the refresh of a counter may be missed, a thousandth of 3 s."""
DEFAULT_SIMULATED = "H100"
"""What a machine without an NVIDIA GPU simulates when nobody says what."""


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """How an agent runs.

    Attributes:
        home: the ledger; ``node``: this node's name in it.
        meter: ``auto``, ``nvml`` or ``simulated:H100,T4`` (one name per device); see ``open_meter``.
        cpu: how the host's CPU and DRAM are metered: ``auto``, ``rapl``, ``modelled`` or ``none``.
        only_agent: no other agent meters this host: what no attempt uses of its CPU is written down too.
        listen: address the metrics are served on; port 0 takes any; ``access``: who may read them, and how.
        interval_s: time between looks at the devices; ``flush_s``: between writes of the energy log's journal;
            ``roll_s``: between its Parquet files.
        hang_s: how long a driver may not answer before this agent ends, for another to be started.
    """

    home: Path
    node: str
    meter: str = "auto"
    cpu: str = "auto"
    only_agent: bool = False
    listen: str = "127.0.0.1"
    port: int = 0
    interval_s: float = 0.1
    flush_s: float = 1.0
    roll_s: float = 600.0
    hang_s: float = HANG_S
    access: Access = OPEN


def open_meter(wish: str, *, node: str) -> PowerMeter:
    """The meter a wish names; ``auto`` is NVML where there is an NVIDIA device, else simulated boards.

    ``auto:T4,T4`` says what to simulate then. ``replay:a.csv,b.csv`` plays recordings back (see ``read_recording``).

    Raises:
        MeterError: there is an NVIDIA device, but its driver does not answer: that is never simulated away.
        InputError: no such meter, or a recording that cannot be played back.
    """
    # Imported here: a node without NVIDIA boards never loads the driver's binding.
    from workers.telemetry.nvml import NvmlMeter, has_nvidia_device  # noqa: PLC0415

    kind, _, models = wish.partition(":")
    if kind == "auto":
        kind = "nvml" if has_nvidia_device() and os.environ.get("CUDA_VISIBLE_DEVICES") != "" else "simulated"
    if kind == "nvml":
        boards = NvmlMeter()
        sys.stderr.writelines(
            f"{board} is left out: {why}. See `nvidia-smi`; an agent that is started once it answers takes it in.\n"
            for board, why in boards.silent.items()
        )
        return boards
    if kind == "simulated":
        names = tuple(name.strip() for name in (models or DEFAULT_SIMULATED).split(","))
        return SimulatedMeter(names, node=node, clock_ns=time.time_ns)
    if kind == "replay" and models:
        meter = ReplayMeter.open([Path(name.strip()) for name in models.split(",")], clock_ns=time.time_ns)
        sys.stderr.writelines(f"left out of {sentence}\n" for sentence in meter.left_out)
        return meter
    raise InputError(f"unknown meter {wish!r}. Known: auto, nvml, simulated:TYPE[,TYPE...], replay:PATH[,PATH...].")


class Agent:
    """One node's agent; ``run`` returns after ``stop``."""

    def __init__(self, options: AgentOptions, meter: PowerMeter, host: HostMeters | None = None) -> None:
        host = host or open_host_meters("none", node=options.node)
        self._options = options
        # Whether to stop, or else to look closely. A signal handler may put into this queue; an Event could deadlock.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.socket = socket_path(options.home, options.node)
        wait_until_free(self.socket)
        # Held for as long as this process lives.
        hold_node(self.socket)
        log = EnergyLog(Home(options.home).energy(options.node), boot=uuid.uuid4().hex[:8], settler=ChildSettler())
        state = _state(log.recover())
        self._notes = find_notes(self.socket)
        # A simulated board ends with its agent, and its limit too: nothing is left behind.
        is_real = any(device.method is not Method.SIMULATED for device in meter.devices())
        notes = LimitNotes(self.socket.parent if is_real else None)
        self._silent = dict(meter.silent) if isinstance(meter, PartialMeter) else {}
        self._node = NodeMeter(
            CompositeMeter((meter, *host.meters)),
            node=options.node,
            notes=notes,
            usage=host.usage,
            only_agent=options.only_agent,
            unmetered={**host.reasons, **self._silent},
            on_edge=lambda: self._calls.put(False),
            boot=boot_id(),
            resume=state,
            told=_told(self._notes.values()),
        )
        self._shown = self._node.snapshot()
        self._books = Bookkeeper(
            log,
            self._node.take,
            roll_s=options.roll_s,
            remedy=f"make room in {options.home}, or mend it, while this agent runs.",
        )
        self._exporter = serve(
            AgentCollector(self._snapshot), listen=options.listen, port=options.port, access=options.access
        )
        self._leases = LeaseServer(self.socket, self._node, flush=self._books.flush, note=self._books.write)

    def describe(self) -> dict[str, object]:
        """The line printed when the agent is ready."""
        devices = [
            {"uuid": s.device.uuid, "model": s.device.model, "kind": s.device.kind, "method": s.device.method.value}
            for s in self._node.snapshot().devices
        ]
        return {
            "node": self._options.node,
            "socket": str(self.socket),
            "metrics_url": self._exporter.url,
            "pid": os.getpid(),
            "devices": devices,
            "unmetered": self._node.unmetered,
        }

    def run(self) -> None:
        """Sample and flush until stopped; then, whatever happened, close leases, restore limits, write the rest."""
        self._leases.start()
        self._books.begin()
        next_flush_s = time.monotonic() + self._options.flush_s
        watchdog = Watchdog(self._options.hang_s)
        try:
            with contextlib.suppress(MeterError):
                self._node.learn()
            while not self._is_stopped():
                with contextlib.suppress(MeterError):
                    self._node.sample()
                    watchdog.alive()
                if time.monotonic() >= next_flush_s:
                    next_flush_s = time.monotonic() + self._options.flush_s
                    self._write()
        finally:
            watchdog.stop()
            self._leases.stop()
            with contextlib.suppress(MeterError):
                self._node.close_all()
                while self._look_closely():
                    time.sleep(CLOSELY_S)
                self._node.shutdown()
            self._books.finish()
            self._drop_notes()
            self._exporter.close()

    def _write(self) -> None:
        # Asked before: a takeover that ends while the books are written is not in them.
        is_taken_over = not self._node.is_taking_over
        self._books.write()
        if is_taken_over:
            self._drop_notes()

    def _drop_notes(self) -> None:
        """Notes that were booked by are of no use any more, once the books that say so are on disk."""
        if self._notes and not self._node.is_taking_over and not self._books.is_refused:
            for path in self._notes:
                path.unlink(missing_ok=True)
            self._notes = {}

    def _snapshot(self) -> NodeSnapshot:
        """What a scrape shows; where a driver hangs, that its devices do not answer, and no stale figure."""
        try:
            self._shown = self._node.snapshot()
        except MeterError:
            self._shown = without_figures(self._shown)
        return replace(self._shown, write_errors=self._books.write_errors, silent=tuple(self._silent))

    def stop(self) -> None:
        """Make ``run`` return; safe from any thread or signal handler."""
        self._calls.put(True)

    def _is_stopped(self) -> bool:
        """Wait for the next look at everything, looking closely where that helps; whether ``stop`` was called."""
        due_s = time.monotonic() + self._options.interval_s
        is_close = self._look_closely()
        while (left_s := due_s - time.monotonic()) > 0:
            try:
                if self._calls.get(timeout=min(left_s, CLOSELY_S) if is_close else left_s):
                    return True
            except queue.Empty:
                if not is_close:
                    break
            is_close = self._look_closely()
        return False

    def _look_closely(self) -> bool:
        """Whether that helps; a driver that hangs is the next look's business."""
        try:
            return self._node.look_closely()
        except MeterError:
            return False


def _state(written: State | None) -> NodeState | None:
    """The state another agent of this node was killed in; one that cannot be understood is said, and left."""
    if written is None:
        return None
    try:
        return from_json(written)
    except (KeyError, TypeError, ValueError) as error:
        sys.stderr.write(
            f"the state of the agent before this one cannot be taken up: {error!r}. The books begin anew.\n"
        )
        return None


def _told(notes: Iterable[Message]) -> dict[tuple[str, int, int], Told]:
    """By job and attempt, what attempts have left that could not wait for an agent."""
    told = {}
    for note in notes:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            told[str(note["job_id"]), int(note["attempt"]), int(note.get("rank", 0))] = told_from_json(note)
    return told


def parse(arguments: Sequence[str]) -> tuple[AgentOptions, int | None]:
    """Command line to options and the lifeline's descriptor.

    Raises:
        InputError: flags that do not go together.
    """
    parser = argparse.ArgumentParser(prog="python -m workers.agent", description="Meter one node.")
    parser.add_argument("--home", type=Path, default=Home.default().root, help="ledger folder (env WATTLEDGER_HOME)")
    parser.add_argument("--node", default=socket.gethostname(), help="this node's name in the ledger")
    parser.add_argument("--meter", default="auto", help=METER_HELP)
    parser.add_argument("--cpu", choices=WISHES, default="auto", help="how CPU and DRAM are metered (default auto)")
    parser.add_argument(
        "--only-agent", action="store_true", help="no other agent meters this host: book its idle CPU energy too"
    )
    parser.add_argument("--listen", default="127.0.0.1", help="address of /metrics (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port of /metrics; 0 takes any (default 0)")
    add_flags(parser)
    parser.add_argument("--interval-ms", type=int, default=100, help="time between reads (default 100)")
    parser.add_argument("--flush-ms", type=int, default=1000, help="time between writes (default 1000)")
    parser.add_argument("--roll-ms", type=int, default=600_000, help="time between Parquet files (default 600000)")
    parser.add_argument(
        "--hang-ms", type=int, default=int(HANG_S * 1000), help="end when a driver hangs for so long (default 20000)"
    )
    parser.add_argument(lifeline.FLAG, type=int, help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    options = AgentOptions(
        home=found.home,
        node=found.node,
        meter=found.meter,
        cpu=found.cpu,
        only_agent=found.only_agent,
        listen=found.listen,
        port=found.port,
        interval_s=found.interval_ms / 1000,
        flush_s=found.flush_ms / 1000,
        roll_s=found.roll_ms / 1000,
        hang_s=found.hang_ms / 1000,
        access=access_of(found, listen=found.listen),
    )
    return options, found.lifeline_fd


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an agent; gives the exit code."""
    try:
        options, lifeline_fd = parse(sys.argv[1:] if arguments is None else arguments)
        meter = open_meter(options.meter, node=options.node)
        agent = Agent(options, meter, open_host_meters(options.cpu, node=options.node))
    except (WattledgerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code if isinstance(error, WattledgerError) else MeterError.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    if lifeline_fd is not None:
        lifeline.watch(lifeline_fd, agent.stop)
    print(json.dumps(agent.describe()), flush=True)
    agent.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
