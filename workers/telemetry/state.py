"""What an agent writes down of itself each second, so that the next one goes on where it was killed.

As JSON, beside the entries in the journal: where each book stands, which leases are open, what meters count for
themselves, and which limits are owed. A state is of one boot of the host: afterwards counters, processes and limits
are others, and nothing is taken up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.contract import Lease, Phase, Power, Reading
from workers.telemetry.booking import Standing
from workers.telemetry.stretches import Claim
from workers.telemetry.takeover import Told

FORMAT = 1
"""Changes with what is in a state, meters' memories included: an agent takes up what it understands, or begins anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldLease:
    """An open lease as the state has it.

    Attributes:
        power: the limit it asked for.
        started: what makes its process number this process and no other (see ``procfs.started_ticks``).
    """

    lease: Lease
    power: Power
    started: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeState:
    """An agent's state.

    Attributes:
        time_ns: when it was taken.
        boot: of which boot of the host it is; ``None`` where the host does not say.
        held: open leases; ``closed``: those that ended a moment ago, and when.
        books: device to where its book stands.
        limits_mw: device to the limit to go back to, of those that are capped.
        meter: what meters count for themselves; ``usage``: what was seen of the host's processor time.
    """

    time_ns: int
    boot: str | None
    held: tuple[HeldLease, ...] = ()
    closed: tuple[tuple[Lease, int], ...] = ()
    books: Mapping[str, Standing] = field(default_factory=dict)
    limits_mw: Mapping[str, int] = field(default_factory=dict)
    meter: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None


def to_json(state: NodeState) -> dict[str, Any]:
    """The state as JSON takes it."""
    return {
        "format": FORMAT,
        "time_ns": state.time_ns,
        "boot": state.boot,
        "held": [
            {**_lease_to_json(held.lease), "power": held.power.model_dump(exclude_none=True), "started": held.started}
            for held in state.held
        ],
        "closed": [{**_lease_to_json(lease), "closed_ns": closed_ns} for lease, closed_ns in state.closed],
        "books": {device: _standing_to_json(standing) for device, standing in state.books.items()},
        "limits_mw": state.limits_mw,
        "meter": state.meter,
        "usage": state.usage,
    }


def from_json(told: Mapping[str, Any]) -> NodeState:
    """The state in a journal.

    Raises:
        KeyError, TypeError, ValueError: it is not one of this version's.
    """
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']}, not {FORMAT}")
    return NodeState(
        time_ns=told["time_ns"],
        boot=told["boot"],
        held=tuple(
            HeldLease(lease=_lease(each), power=Power.model_validate(each["power"]), started=each["started"])
            for each in told["held"]
        ),
        closed=tuple((_lease(each), each["closed_ns"]) for each in told["closed"]),
        books={device: _standing(each) for device, each in told["books"].items()},
        limits_mw=told["limits_mw"],
        meter=told["meter"],
        usage=told["usage"],
    )


def told_from_json(plain: Mapping[str, Any]) -> Told:
    """What an attempt told, from a request or a note.

    Raises:
        KeyError, TypeError, ValueError: it is not that.
    """
    closed_ns = plain.get("closed_ns")
    phases = tuple((int(time_ns), _phase(phase)) for time_ns, phase in plain["phases"])
    return Told(phases=phases, closed_ns=None if closed_ns is None else int(closed_ns))


def _lease_to_json(lease: Lease) -> dict[str, Any]:
    return {
        "lease_id": lease.lease_id,
        "job_id": lease.job_id,
        "attempt": lease.attempt,
        "devices": lease.devices,
        "pid": lease.pid,
        "cpus": lease.cpus,
        "opened_ns": lease.opened_ns,
        "phase": lease.phase,
        "rank": lease.rank,
    }


def _lease(plain: Mapping[str, Any]) -> Lease:
    return Lease(
        lease_id=plain["lease_id"],
        job_id=plain["job_id"],
        attempt=plain["attempt"],
        devices=tuple(plain["devices"]),
        pid=plain["pid"],
        cpus=plain["cpus"],
        opened_ns=plain["opened_ns"],
        phase=_phase(plain["phase"]),
        # A state of an earlier version tells of attempts of one rank.
        rank=plain.get("rank", 0),
    )


def _standing_to_json(standing: Standing) -> dict[str, Any]:
    booked = standing.booked
    return {
        "booked": [booked.device, booked.time_ns, booked.energy_mj, booked.power_mw],
        "stretches": [
            [start_ns, [[c.lease_id, c.job_id, c.attempt, c.phase] for c in claims], list(used.items())]
            for start_ns, claims, used in standing.stretches
        ],
        "left_pj": standing.left_pj,
        "idle_mw": standing.idle_mw,
        "booked_mj": standing.booked_mj,
        "by_lease": standing.by_lease,
    }


def _standing(plain: Mapping[str, Any]) -> Standing:
    device, time_ns, energy_mj, power_mw = plain["booked"]
    return Standing(
        booked=Reading(device=device, time_ns=time_ns, energy_mj=energy_mj, power_mw=power_mw),
        stretches=tuple(
            (start_ns, tuple(_claim(*claim) for claim in claims), dict(used))
            for start_ns, claims, used in plain["stretches"]
        ),
        left_pj=plain["left_pj"],
        idle_mw=plain["idle_mw"],
        booked_mj=plain["booked_mj"],
        by_lease=plain["by_lease"],
    )


def _claim(lease_id: str, job_id: str, attempt: int, phase: str | None) -> Claim:
    return Claim(lease_id=lease_id, job_id=job_id, attempt=attempt, phase=_phase(phase))


def _phase(name: str | None) -> Phase | None:
    return None if name is None else Phase(name)
