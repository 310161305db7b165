"""The attempts that this driver follows: started on Ray as detached actors, taken up again, stopped, seen to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.actors import AttemptActor
from orchestrator.cluster.agents import NAMESPACE, NODE_ID_LABEL, Agents, first_line, ledger_name
from orchestrator.cluster.gpus import Held
from orchestrator.cluster.outcome import Outcome, combined, kept_outcome
from orchestrator.cluster.part import MEMORY_REMEDY, PartSpec
from orchestrator.cluster.port import Ended
from workers.contract import JobSpec, Resources
from workers.home import Home

ASK_AGAIN_S = 0.5
"""Between two questions to an actor that cannot be reached; it takes Ray many seconds to miss a node."""
_ALIVE = "ALIVE"


@dataclass(kw_only=True)
class _Part:
    """One node's part.

    Attributes:
        end: Ray's reference to its outcome, and ``asked_device`` to the GPU of which it holds a part.
        ask_again_s: when its actor, which could not be reached, is asked again.
        outcome: ``None`` until it is known.
        given_up: why its actor was killed before that; ``is_taken_back``: because it had not started and was not to.
    """

    node_id: str
    actor: Any = None
    end: Any = None
    ask_again_s: float = 0.0
    asked_device: Any = None
    device: str | None = None
    outcome: Outcome | None = None
    given_up: str | None = None
    is_taken_back: bool = False


@dataclass(kw_only=True)
class _Attempt:
    spec: JobSpec
    number: int
    parts: list[_Part]

    @property
    def is_over(self) -> bool:
        return all(part.outcome for part in self.parts)

    @property
    def waiting(self) -> list[_Part]:
        return [part for part in self.parts if part.outcome is None]


class Attempts:
    """The attempts of one ledger.

    Args:
        home: the ledger; the same path on every node.
        program: the module that an attempt's processes run.
        agents: those of the nodes; on a node without one an attempt meters itself.
    """

    def __init__(self, home: Home, *, program: str, agents: Agents) -> None:
        self._home, self._program, self._agents = home, program, agents
        self._followed: dict[str, _Attempt] = {}

    def launch(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """An actor on each node runs its part. One node needs no more; several are reserved together or not at all."""
        name, parts, first = self._name(spec.job_id, attempt), [], None
        group = _reserve(name, spec.resources, nodes) if len(nodes) > 1 else None
        for number, node_id in enumerate(nodes):
            place: dict[str, Any] = {"label_selector": {NODE_ID_LABEL: node_id}}
            if group is not None:
                place = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, number)}
            actor = AttemptActor.options(
                name=f"{name}-{number}",
                namespace=NAMESPACE,
                lifetime="detached",
                num_gpus=spec.resources.gpus,
                num_cpus=spec.resources.cpus,
                memory=_bytes(spec.resources),
                **place,
            ).remote(self._part_spec(spec, attempt, number, nodes), first)
            # The others ask it themselves where to meet: an answer that this driver holds would be lost with it.
            first = first or actor
            parts.append(_follow(_Part(node_id=node_id), actor, spec))
        self._followed[spec.job_id] = _Attempt(spec=spec, number=attempt, parts=parts)

    def _part_spec(self, spec: JobSpec, attempt: int, number: int, nodes: tuple[str, ...]) -> PartSpec:
        agent = self._agents.known.get(nodes[number])
        return PartSpec(
            job=spec.to_json(),
            job_id=spec.job_id,
            attempt=attempt,
            home=str(self._home.root),
            number=number,
            count=len(nodes),
            ranks=max(1, int(spec.resources.gpus)),
            agent=agent.socket if agent else None,
            simulated=agent is not None and agent.simulated,
            program=self._program,
        )

    def adopt(self, spec: JobSpec, *, attempt: int, nodes: tuple[str, ...]) -> None:
        """Find each part's actor, else what it wrote when it ended; without either it is lost, the rest ended."""
        name, parts = self._name(spec.job_id, attempt), []
        for number, node_id in enumerate(nodes):
            part = _Part(node_id=node_id)
            try:
                _follow(part, ray.get_actor(f"{name}-{number}", namespace=NAMESPACE), spec)
            except ValueError:
                lost = "it never started, or was lost with its Ray worker or node while no controller was there."
                part.outcome = self._kept(spec, attempt, number) or _lost(lost)
            parts.append(part)
        found = _Attempt(spec=spec, number=attempt, parts=parts)
        self._followed[spec.job_id] = found
        if any(part.outcome and part.outcome.exit_code != 0 for part in parts):
            self._tell_to_leave(found, checkpoint=False)

    def stop(self, job_id: str, *, checkpoint: bool) -> None:
        """Ask every part that runs; one that waits in Ray for its place is taken back."""
        if job_id in self._followed:
            self._tell_to_leave(self._followed[job_id], checkpoint=checkpoint)

    def ended(self, *, timeout_s: float) -> tuple[Ended, ...]:
        """Waits on Ray's own notice that a part ended, until an attempt has ended whole.

        With nothing to follow it is others' work that is waited for.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            over = [attempt for attempt in self._followed.values() if attempt.is_over]
            if over:
                return tuple(self._end(attempt) for attempt in over)
            left_s = max(0.0, deadline_s - time.monotonic())
            ends = {part.end: (attempt, number) for attempt, number, part in self._asked()}
            is_all = len(ends) == sum(1 for _ in self._waiting())
            ready = _wait(list(ends), left_s if is_all else min(left_s, ASK_AGAIN_S))
            for end in ready:
                self._take_in(*ends[end])
            if not ready and time.monotonic() >= deadline_s:
                return ()

    def lose_beyond(self, alive: Collection[str]) -> None:
        """Of all nodes only these answer: what Ray still means to start on others will never start."""
        for _, _, part in self._waiting():
            if part.node_id not in alive and part.given_up is None:
                part.given_up = "its node was lost."
                ray.kill(part.actor)

    def held(self, node_id: str) -> tuple[list[Held], float, float]:
        """What attempts hold on a node: GPUs, CPU cores, and GB of memory."""
        here = [(each.spec.resources, part) for each in self._followed.values() for part in each.parts]
        wanted = [(resources, part) for resources, part in here if part.node_id == node_id]
        gpus = [Held(gpus=resources.gpus, device=_device(part)) for resources, part in wanted]
        cpus = sum(resources.cpus for resources, _ in wanted)
        return gpus, cpus, sum(resources.memory_gb or 0.0 for resources, _ in wanted)

    def _waiting(self) -> Iterator[tuple[_Attempt, int, _Part]]:
        for attempt in self._followed.values():
            for number, part in enumerate(attempt.parts):
                if part.outcome is None:
                    yield attempt, number, part

    def _asked(self) -> Iterator[tuple[_Attempt, int, _Part]]:
        """Those whose actor has been asked for the end, again where it could not answer a while ago."""
        for attempt, number, part in self._waiting():
            if part.end is None and time.monotonic() >= part.ask_again_s:
                part.end = part.actor.wait.remote()
            if part.end is not None:
                yield attempt, number, part

    def _take_in(self, attempt: _Attempt, number: int) -> None:
        """Note how a part ended; when it ended badly the others cannot go on."""
        part = attempt.parts[number]
        try:
            part.outcome = ray.get(part.end)
        except ActorUnavailableError:
            # It may well run: Ray lost the connection, and makes it anew or finds that the node is gone.
            part.end, part.ask_again_s = None, time.monotonic() + ASK_AGAIN_S
            return
        except RayError as error:
            # Its processes may have ended before their actor was lost.
            part.outcome = self._kept(attempt.spec, attempt.number, number) or _lost(part.given_up or _why_lost(error))
        assert part.outcome is not None
        if part.outcome.exit_code != 0 and attempt.waiting:
            self._tell_to_leave(attempt, checkpoint=False)

    def _tell_to_leave(self, attempt: _Attempt, *, checkpoint: bool) -> None:
        for part in attempt.waiting:
            if ray._private.state.actors(part.actor._actor_id.hex()).get("State") == _ALIVE:
                part.actor.stop.remote(checkpoint)
            else:
                part.given_up = part.given_up or "it was asked to leave before it had started."
                part.is_taken_back = True
                ray.kill(part.actor)

    def _end(self, attempt: _Attempt) -> Ended:
        """What it left, and nothing of it on the cluster."""
        del self._followed[attempt.spec.job_id]
        for part in attempt.parts:
            if part.actor is not None:
                ray.kill(part.actor)
        if len(attempt.parts) > 1:
            with contextlib.suppress(ValueError):
                remove_placement_group(get_placement_group(self._name(attempt.spec.job_id, attempt.number)))
        known = [(part.outcome, part.is_taken_back) for part in attempt.parts if part.outcome]
        # What was taken back, as a rule because of another's end, says nothing that the other does not.
        bad = [outcome for outcome, is_taken_back in known if outcome.exit_code != 0 and not is_taken_back]
        outcome = combined(bad or [outcome for outcome, _ in known])
        return Ended(
            job_id=attempt.spec.job_id,
            attempt=attempt.number,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
            ended_ns=outcome.ended_ns,
        )

    def _kept(self, spec: JobSpec, attempt: int, part: int) -> Outcome | None:
        return kept_outcome(self._home, spec.job_id, attempt, part)

    def _name(self, job_id: str, attempt: int) -> str:
        return f"attempt-{ledger_name(self._home)}-{job_id}-{attempt}"


def _reserve(name: str, resources: Resources, nodes: tuple[str, ...]) -> Any:  # noqa: ANN401 - Ray's own
    """Hold a place on each of the nodes."""
    bundle = {"GPU": resources.gpus, "CPU": resources.cpus, "memory": _bytes(resources) or 0}
    return placement_group(
        [{kind: amount for kind, amount in bundle.items() if amount} for _ in nodes],
        strategy="STRICT_SPREAD",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{NODE_ID_LABEL: node_id} for node_id in nodes],
    )


def _bytes(resources: Resources) -> int | None:
    return None if resources.memory_gb is None else int(resources.memory_gb * 1e9)


def _follow(part: _Part, actor: Any, spec: JobSpec) -> _Part:  # noqa: ANN401 - Ray's actor handle
    part.actor, part.end = actor, actor.wait.remote()
    if 0 < spec.resources.gpus < 1:
        part.asked_device = actor.devices.remote()
    return part


def _wait(ends: list[Any], timeout_s: float) -> list[Any]:
    """Those that are known, once the first is."""
    if not ends:
        time.sleep(timeout_s)
        return []
    ready, others = ray.wait(ends, num_returns=1, timeout=timeout_s)
    if ready and others:
        ready += ray.wait(others, num_returns=len(others), timeout=0)[0]
    return list(ready)


def _device(part: _Part) -> str | None:
    """Of which GPU it holds a part, once its actor has said so."""
    if part.asked_device is not None and ray.wait([part.asked_device], timeout=0)[0]:
        with contextlib.suppress(RayError):
            part.device = ray.get(part.asked_device)[0]
        part.asked_device = None
    return part.device


def _lost(reason: str) -> Outcome:
    return Outcome(exit_code=None, reason=reason, ended_ns=None)


def _why_lost(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"Ray ended its worker because its node's memory was nearly full: {first_line(error)} {MEMORY_REMEDY}"
    if isinstance(error, RayTaskError):
        return f"it could not be started: {first_line(error.cause)}"
    if isinstance(error, RayActorError):
        return f"its Ray worker or node was lost: {first_line(error)}"
    return f"Ray lost it: {first_line(error)}"
