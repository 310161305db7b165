"""A Ray cluster of this machine's own: a head and one node per accelerator, started with ``ray start`` and ended.

Each node is a real Ray node with its own raylet, labels and agent. Where the machine has NVIDIA boards a node gets one
of them; otherwise its accelerator is simulated. Joining needs a token made for this cluster alone, since Ray listens
on all interfaces. This module must not import ``ray``: the token has to be in the environment before that.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.keeper import Kept
from workers.errors import UnreachableError
from workers.telemetry.profiles import board_profile

DEFAULT_SIMULATED = {"H100": 1, "A100-80GB": 2}
"""Two generations, 700 W and 400 W, of which the later is 3.4 times as fast (FP32): a comparison worth reading. And the
two whose embodied carbon somebody has published, so that the demo's rows have that as well. Two nodes of the slower: a
job on a simulated one leaves its core idle for two thirds of the time, and with one of them the demo took 7 minutes."""
START_S = 60.0
TRIES = 3
"""A raylet that finds a port taken aborts; the next try takes others."""
_RAY_WORKER_PORTS = range(10002, 20000)
"""Ray gives these to workers, so a head may not listen on one."""
_OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class LocalNode:
    """One node to start: its accelerator, and the board to show it, or ``None`` to simulate one."""

    accelerator: str
    board_uuid: str | None

    @property
    def simulated(self) -> bool:
        """Whether its accelerator is simulated."""
        return self.board_uuid is None


def local_nodes(simulated: Sequence[str] = (), *, cpu_only: bool = False) -> tuple[LocalNode, ...]:
    """The nodes this machine can stand for: its NVIDIA boards, and simulated ones up to two types.

    Args:
        simulated: accelerator types to simulate besides; empty means as many as two types need.
        cpu_only: leave the NVIDIA boards out.

    Raises:
        UnknownNameError: a type that cannot be simulated.
        MeterError: there is an NVIDIA device whose driver does not answer.
    """
    from workers.telemetry.nvml import NvmlMeter, has_nvidia_device  # noqa: PLC0415 - not without a board

    real: tuple[LocalNode, ...] = ()
    if not cpu_only and has_nvidia_device():
        meter = NvmlMeter()
        real = tuple(LocalNode(accelerator=device.model, board_uuid=device.uuid) for device in meter.devices())
        meter.close()
    types = {node.accelerator for node in real}
    lacking = [name for name in DEFAULT_SIMULATED if name not in types][: max(0, 2 - len(types))]
    wanted = simulated or [name for name in lacking for _ in range(DEFAULT_SIMULATED[name])]
    return (*real, *(LocalNode(accelerator=board_profile(name).model, board_uuid=None) for name in wanted))


class LocalCluster:
    """A running local cluster; ``address`` is where drivers join."""

    def __init__(self, *, address: str, dashboard_url: str) -> None:
        self.address, self.dashboard_url = address, dashboard_url


@contextlib.contextmanager
def local_cluster(nodes: Sequence[LocalNode], *, say: Callable[[str], None]) -> Iterator[LocalCluster]:
    """Start a head and ``nodes``; everything is ended on the way out, whatever the way.

    Raises:
        UnreachableError: Ray does not start; the message ends with what its log says.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wl-ray-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_token(folder))
        dashboard_port = _free_port()
        say("starting a local Ray cluster: head")
        head = [
            *("--head", f"--port={_free_port()}", f"--temp-dir={folder}", "--num-cpus=0", "--num-gpus=0"),
            *(f"--dashboard-port={dashboard_port}", f"--ray-client-server-port={_free_port()}"),
        ]
        address = _start(stack, folder / "head.log", head, _environment(None))
        for number, node in enumerate(nodes, 1):
            kind = "simulated " if node.simulated else ""
            say(f"starting a local Ray cluster: node {number} of {len(nodes)} with one {kind}{node.accelerator}")
            stack.enter_context(local_node(address, node, log=folder / f"node-{number}.log"))
        yield LocalCluster(address=address, dashboard_url=f"http://127.0.0.1:{dashboard_port}")


@contextlib.contextmanager
def local_node(address: str, node: LocalNode, *, log: Path) -> Iterator[None]:
    """One node of this machine, joined to the cluster at ``address`` and ended on the way out.

    The cluster's token must be in the environment, as it is while ``local_cluster`` is open.

    Raises:
        UnreachableError: Ray does not start; the message ends with what its log says.
    """
    with contextlib.ExitStack() as stack:
        _start(stack, log, [f"--address={address}", *_node_arguments(node)], _environment(node))
        yield


def _node_arguments(node: LocalNode) -> list[str]:
    labels = f"ray.io/accelerator-type={node.accelerator}"
    if node.simulated:
        labels += ",wattledger.io/meter=simulated"
    return ["--num-cpus=1", "--num-gpus=1", f"--labels={labels}"]


def _environment(node: LocalNode | None) -> dict[str, str]:
    """What a node's processes see of the machine's boards: one that shows a board sees that one alone."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    # Ray would wait half a minute for what runs there, agents included, which leave when their node does.
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    # And kill an attempt where it ends a worker; ours see that themselves and leave in order.
    environment["RAY_kill_child_processes_on_worker_exit"] = "false"
    # Ray runs its workers at niceness 15: beside any other work on this machine an agent would read its meters late.
    environment.setdefault("RAY_worker_niceness", "0")
    if node is not None and node.board_uuid is not None:
        environment["CUDA_VISIBLE_DEVICES"] = node.board_uuid
    return environment


def _start(stack: contextlib.ExitStack, log: Path, arguments: Sequence[str], environment: dict[str, str]) -> str:
    """Start one node and wait until it runs; gives the address the head prints (or joined)."""
    for _ in range(TRIES):
        ports = ["--dashboard-agent-listen-port", "--metrics-export-port", "--runtime-env-agent-port"]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            *(f"{port}={_free_port()}" for port in ports),
            *arguments,
        ]
        with contextlib.ExitStack() as trying:
            # Held from the first moment: an interrupt while a node starts must end that node too.
            kept = Kept(command, log, environment=environment)
            trying.callback(kept.end)
            if _wait_running(kept, log):
                stack.push(trying.pop_all())
                found = re.search(r"--address='([^']+)'", log.read_text(errors="replace"))
                return found[1] if found else ""
    last = "\n".join(log.read_text(errors="replace").splitlines()[-3:])
    raise UnreachableError(f"a local Ray node does not start. Mend what its log ends with:\n{last}")


def _wait_running(kept: Kept, log: Path) -> bool:
    """Whether ``ray start`` says that it runs, before it ends or time is up."""
    deadline_s = time.monotonic() + START_S
    pause = threading.Event()
    while time.monotonic() < deadline_s and not kept.ended:
        if "Ray runtime started." in log.read_text(errors="replace"):
            return True
        pause.wait(0.1)
    return False


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[None]:
    """A token only this user can read, in the environment of everything this process starts."""
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    """A port nobody listens on now, outside those Ray gives to workers."""
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in _RAY_WORKER_PORTS:
            return port
