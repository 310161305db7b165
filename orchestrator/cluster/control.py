"""The controller of a ledger on a Ray cluster: raised, told and lowered through one detached actor on the head."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_placement_group, list_named_actors, placement_group_table, remove_placement_group

from orchestrator.cluster.actors import IN_ORDER, KEEP_CHILDREN
from orchestrator.cluster.agents import NAMESPACE, first_line, ledger_name
from orchestrator.cluster.options import ControllerOptions
from orchestrator.cluster.ray_cluster import connect
from workers import lifeline
from workers.errors import InputError, UnreachableError
from workers.home import Home

HEAD = {"node:__internal_head__": 0.001}
"""Only the head has this resource, of which it has 1."""
START_S = 120.0
"""A controller waits for Ray, for the agents it starts, and for the one before it to leave."""
LEAVE_S = 20.0
_PAUSE_S = 0.1
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where ``ray.init`` finds the runtime environment that is to be that of a driver's actors."""


@dataclass(frozen=True, kw_only=True)
class ControllerInfo:
    """A controller that runs.

    Attributes:
        pid: its process, on ``host``; ``address``: of the Ray head it serves.
        targets_url: where it tells Prometheus the agents.
        is_new: whether it was raised now; one that ran before keeps its own options.
    """

    pid: int
    host: str
    address: str
    targets_url: str
    is_new: bool


@ray.remote(num_cpus=0, max_restarts=-1)
class ControllerActor:
    """Keeps a ledger's controller. Detached, on the head: Ray starts it anew wherever it is lost."""

    def __init__(self, home: str, address: str, flags: list[str]) -> None:
        self._log = Home(Path(home)).run / "controller.log"
        self._arguments = ["--home", home, "--address", address, *flags]
        self._child = lifeline.KeptChild(self._start, self._hear)
        # Whoever raises it hears why it does not start; when Ray has started this actor anew nobody listens.
        while "error" in self._said and ray.get_runtime_context().was_current_actor_reconstructed:
            time.sleep(lifeline.LONGEST_PAUSE_S)
            self._child = lifeline.KeptChild(self._start, self._hear)

    def _start(self) -> lifeline.Child:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            return lifeline.spawn(
                "orchestrator.serve", self._arguments, environment=_environment(), stdout=subprocess.PIPE, stderr=log
            )

    def _hear(self, line: bytes) -> None:
        self._said = json.loads(line) if line else {"error": _last_words(self._log)}

    def info(self) -> dict[str, Any]:
        """What the controller said when it was ready, the last time; ``{"error", "exit_code"}`` when it is not."""
        if "error" in self._said:
            return {**self._said, "exit_code": self._child.process.wait()}
        return self._said

    def hold(self, on: bool) -> None:
        """Have the controller start nothing new, or go on."""
        self._child.process.send_signal(signal.SIGUSR1 if on else signal.SIGUSR2)

    def stop(self) -> None:
        """End the controller; attempts go on."""
        self._child.release(timeout_s=LEAVE_S)


def raise_controller(address: str, home: Home, options: ControllerOptions) -> ControllerInfo:
    """Have a ledger's controller on a cluster, raised now if there is none; one that runs keeps its own options.

    Args:
        address: ``host:port`` of the head, or ``auto``.
        home: the ledger, on a disk of the head.
        options: how a new one is started.

    Raises:
        UnreachableError: no cluster, or the controller does not come up.
        InputError: it refuses: another cluster's controller serves this ledger, or a port is taken.
    """
    with _joined(address):
        name = f"controller-{ledger_name(home)}"
        is_new = _find(name) is None
        actor = ControllerActor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            runtime_env=IN_ORDER,
            resources=HEAD,
        ).remote(str(home.root), ray.get_runtime_context().gcs_address, options.flags())
        said = _ask(actor.info.remote)
        if "error" in said:
            _stop(_names(home))
            kind = InputError if said["exit_code"] == InputError.exit_code else UnreachableError
            raise kind(f"the controller did not start: {said['error']}")
        return ControllerInfo(**said, is_new=is_new)


def lower_controller(address: str, home: Home, *, before: Callable[[], None]) -> bool:
    """End a ledger's controller and agents, and whatever else of it a cluster still has; whether there was any.

    Args:
        address: ``host:port`` of the head, or ``auto``.
        home: the ledger.
        before: called while the controller runs and starts nothing new; when it raises, everything goes on.

    Raises:
        UnreachableError: no cluster, or what it has of this ledger does not end.
    """
    with _joined(address):
        controller = _find(f"controller-{ledger_name(home)}")
        if controller is None:
            before()
        else:
            _hold(controller, before)
        names = _names(home)
        _stop([name for name in names if name.startswith("controller-")])
        _stop([name for name in names if not name.startswith("controller-")])
        for group in _groups(home):
            with contextlib.suppress(ValueError):
                remove_placement_group(get_placement_group(group))
        _wait_until_gone(home)
        return bool(names)


def _hold(controller: Any, before: Callable[[], None]) -> None:  # noqa: ANN401 - Ray's actor handle
    _ask(lambda: controller.hold.remote(True))
    try:
        before()
    except BaseException:
        with contextlib.suppress(RayError):
            ray.get(controller.hold.remote(False), timeout=LEAVE_S)
        raise


def _stop(names: list[str]) -> None:
    """Have actors end what they keep, in order and all at once, and then end them; one that is stuck just ends."""
    actors = {name: actor for name in names if (actor := _find(name)) is not None}
    # An attempt's actor has nothing to be asked: killing it ends what is left of the attempt.
    stopping = [actor.stop.remote() for name, actor in actors.items() if not name.startswith("attempt-")]
    if stopping:
        ray.wait(stopping, num_returns=len(stopping), timeout=LEAVE_S)
    for actor in actors.values():
        ray.kill(actor)


def _wait_until_gone(home: Home) -> None:
    deadline_s = time.monotonic() + LEAVE_S
    while left := _names(home) + _groups(home):
        if time.monotonic() > deadline_s:
            raise UnreachableError(f"{', '.join(left)} does not end. Look into the logs of Ray's head, and try again.")
        time.sleep(_PAUSE_S)


def _names(home: Home) -> list[str]:
    """The actors a cluster has of a ledger."""
    return [name for name in list_named_actors() if _is_ours(name, home)]


def _groups(home: Home) -> list[str]:
    """The placement groups a cluster has of a ledger."""
    groups = placement_group_table().values()
    return [group["name"] for group in groups if group["state"] != "REMOVED" and _is_ours(group["name"], home)]


def _is_ours(name: str, home: Home) -> bool:
    """Names are ``WHAT-LEDGER`` or ``WHAT-LEDGER-MORE``."""
    return name.split("-")[1:2] == [ledger_name(home)]


def _find(name: str) -> Any:  # noqa: ANN401 - Ray's actor handle
    """An actor; ``None`` when Ray knows none."""
    with contextlib.suppress(ValueError):
        return ray.get_actor(name, namespace=NAMESPACE)
    return None


def _ask(question: Callable[[], Any]) -> Any:  # noqa: ANN401 - Ray's references
    """An answer of the controller's actor, which Ray may just be starting anew."""
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            return ray.get(question(), timeout=max(0.0, deadline_s - time.monotonic()))
        except RayError as error:
            if time.monotonic() >= deadline_s:
                raise UnreachableError(
                    f"the controller does not answer: {first_line(error)} Look into the logs of Ray's head."
                ) from error
            time.sleep(_PAUSE_S)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def _environment() -> dict[str, str]:
    """The worker's environment; where its code came with a Ray job, so does that of what the controller starts."""
    wanted = dict(ray.get_runtime_context().runtime_env)
    variables = wanted.pop("env_vars", {}).items() - KEEP_CHILDREN.items()  # this actor's own wish
    if variables:
        wanted["env_vars"] = dict(variables)
    return {**os.environ, _JOB_CONFIG: json.dumps({"runtime_env": wanted})}


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else f"it said nothing in {log}"
