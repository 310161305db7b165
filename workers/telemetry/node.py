"""Meters one node: reads its devices, keeps its leases, books its joules, sets and restores its limits.

Synchronous and clockless but for the clock it is given; one lock makes it safe to call from the sampler's thread, the
lease server's threads and the exporter's alike.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from workers.contract import Device, EnergyEntry, Lease, Method, Phase, Power, Reading
from workers.errors import InputError, MeterError
from workers.powercap.notes import LimitNotes
from workers.telemetry.booking import Claim, DeviceBook, Standing
from workers.telemetry.caps import Caps
from workers.telemetry.journal import State
from workers.telemetry.meter import PowerMeter, RemembersMeter, find_device
from workers.telemetry.patience import BoundedLock
from workers.telemetry.procfs import lineage, started_ticks
from workers.telemetry.sharing import use_by_lease
from workers.telemetry.snapshot import DeviceStatus, LeaseStatus, NodeSnapshot
from workers.telemetry.state import HeldLease, NodeState, to_json
from workers.telemetry.takeover import Takeover, Told, play, play_host
from workers.telemetry.usage import HostUsage
from workers.units import MW_PER_W, NS_PER_S

KEEP_CLOSED_NS = 60 * NS_PER_S
"""How long a closed lease's counter stays in the snapshot, so that the last scrape sees its final value."""
RETURN_NS = 5 * NS_PER_S
"""How long a restarted agent waits for the attempts that hold leases to tell their phases; they try twice a second."""
HOST_EVERY_NS = NS_PER_S
"""Time between looks at the host's own devices, edges apart: whose processor time it was takes many small files."""


@dataclass(frozen=True, kw_only=True)
class LeaseRequest:
    """What an attempt asks for.

    Attributes:
        devices: UUIDs or indices, as the launcher named them.
        pid: the process whose activity and death the lease follows.
        cpus: cores that process may use; what makes a simulated device fully busy.
        phase: the phase it begins in.
        power: the limit wished for on each device.
    """

    job_id: str
    attempt: int
    devices: tuple[str, ...]
    pid: int
    cpus: float
    phase: Phase | None = None
    power: Power = field(default_factory=Power)


@dataclass
class _DeviceState:
    """What the node knows of a device; ``last`` is ``None`` when the last read failed.

    ``sharers`` are the leases on it when they are several: its joules are split by what each used.
    """

    device: Device
    book: DeviceBook
    sharers: tuple[Lease, ...] = ()
    last: Reading | None = None
    errors: int = 0


class NodeMeter:
    """See the module. Devices that cannot be read are counted and come back when they can.

    Args:
        meter: every device of the node; GPUs are leased, the host's CPU and DRAM are shared out (see ``usage``).
        node: its name.
        clock_ns: ns since the epoch.
        notes: remembers limits; those it finds left behind by a process that died are put back at once.
        usage: who uses the host; without it the host's own devices, if any, are all idle.
        only_agent: no other agent meters this host, so what no attempt used of it may be written down.
        lineage: a process and those it descends from, by pid; whose lease a process is under.
        unmetered: why a kind of device (``cpu``, ``dram``) or a board (``GPU 3``) is not metered; attempts are told.
        on_edge: called when close looks would help, by somebody who then calls ``look_closely`` until they no longer
            do; without it nobody does.
        boot: which boot of the host this is.
        resume: the state in which an agent of this node was killed; one of another boot is of no use.
        told: by job and attempt, what attempts have left that could not wait for this agent.
        started: what makes a process number this process and no other; ``None`` when it is gone.
    """

    def __init__(
        self,
        meter: PowerMeter,
        *,
        node: str,
        clock_ns: Callable[[], int] = time.time_ns,
        notes: LimitNotes | None = None,
        usage: HostUsage | None = None,
        only_agent: bool = False,
        lineage: Callable[[int], Iterable[int]] = lineage,
        unmetered: Mapping[str, str] | None = None,
        on_edge: Callable[[], None] | None = None,
        boot: str | None = None,
        resume: NodeState | None = None,
        told: Mapping[tuple[str, int], Told] | None = None,
        started: Callable[[int], int | None] = started_ticks,
    ) -> None:
        self.node = node
        self._on_edge = on_edge
        self.unmetered = dict(unmetered or {})
        self._meter = meter
        self._clock_ns = clock_ns
        self._lock = BoundedLock()
        self._states = {
            d.uuid: _DeviceState(device=d, book=DeviceBook(d, is_watched=on_edge is not None)) for d in meter.devices()
        }
        self._host = tuple(d.uuid for d in meter.devices() if d.kind != "gpu")
        self._usage, self._only_agent = usage, only_agent
        self._lineage = lineage
        self._host_read_ns: int | None = None
        self._leases: dict[str, Lease] = {}
        self._closed: dict[str, tuple[Lease, int]] = {}
        self._caps = Caps(meter, notes or LimitNotes())
        self._read_seconds = 0.0
        self._boot, self._started = boot, started
        self._wishes: dict[str, tuple[Power, int | None]] = {}
        self._takeover: Takeover | None = None
        self._resumed = NodeState(time_ns=0, boot=boot)
        # Books of devices that are not there now, and leases whose holders have not been heard of since the restart.
        self._absent: dict[str, Standing] = {}
        self._unheard: set[str] = set()
        if resume is not None and resume.boot == boot:
            self._resume(resume, told or {})
        self.tick()

    def tick(self) -> None:
        """Read every device once, book what its counter shows, and put back limits nobody holds any more."""
        with self._lock:
            started = time.perf_counter()
            self._read_all(device for device in self._states if device not in self._host)
            if self._is_host_due():
                self._read_host()
            self._read_seconds = time.perf_counter() - started
            self._count_errors(self._caps.restore())
            if self._takeover is not None and self._takeover.is_over(self._clock_ns()):
                self._finish_takeover()
            for lease_id in [key for key in self._unheard if not self._is_alive(key)]:
                self.close(lease_id)
            self._forget_closed()

    def look_closely(self) -> bool:
        """Read the devices around whose edges every millisecond tells; whether there are any."""
        with self._lock:
            now_ns = self._clock_ns()
            wanting = [device for device, state in self._states.items() if state.book.wants_look(now_ns)]
            self._read_all(wanting)
            return bool(wanting)

    def open(self, request: LeaseRequest, *, lease_id: str | None = None) -> Lease:
        """Open a lease: from now on the devices' joules are this attempt's. ``lease_id``: open that one again.

        Raises:
            UnknownNameError: no such device.
            InputError: this attempt already holds a lease here.
            CapError: the power limit cannot be set; nothing is left changed.
        """
        with self._lock:
            found = [find_device(self._meter.devices(), token).uuid for token in request.devices]
            devices = tuple(dict.fromkeys(found))
            self._refuse_twice(request)
            self._finish_takeover()
            lease = Lease(
                lease_id=lease_id or uuid.uuid4().hex,
                job_id=request.job_id,
                attempt=request.attempt,
                devices=devices,
                pid=request.pid,
                cpus=request.cpus,
                opened_ns=self._clock_ns(),
                phase=request.phase,
            )
            self._caps.hold(lease, request.power)
            self._read_all(devices)
            self._read_host()
            self._meter.attach(lease)
            if self._usage is not None:
                self._usage.attach(lease)
            self._leases[lease.lease_id] = lease
            self._wishes[lease.lease_id] = request.power, self._started(request.pid)
            self._closed.pop(lease.lease_id, None)
            self._mark_edge((*devices, *self._host))
            return lease

    def resume(self, request: LeaseRequest, told: Told) -> Lease:
        """An attempt is back that was without an agent: take up its lease where it is, or open it again.

        Raises:
            InputError: another process holds that lease.
            Everything ``open`` raises.
        """
        with self._lock:
            attempt = request.job_id, request.attempt
            closed = [lease for lease, _ in self._closed.values() if (lease.job_id, lease.attempt) == attempt]
            held = [lease for lease in self._leases.values() if (lease.job_id, lease.attempt) == attempt]
            known = next(iter([*held, *closed]), None)
            if known is not None and known.pid != request.pid:
                self._refuse(known)
            if not held and (told.closed_ns is None or known is None):
                return self.open(request, lease_id=known.lease_id if known else None)
            assert known is not None
            self._unheard.discard(known.lease_id)
            if held:
                self._take_in(known, request.phase, told)
            return known

    def _take_in(self, lease: Lease, phase: Phase | None, told: Told) -> None:
        """What the holder of an open lease tells, which is in ``phase`` now."""
        if self._takeover is not None:
            self._takeover.tell(lease.lease_id, told)
            self._leases[lease.lease_id] = replace(lease, phase=phase)
            self.tick()
        elif lease.phase != phase:
            self.set_phase(lease.lease_id, phase)
        if told.closed_ns is not None and lease.lease_id in self._leases and self._takeover is None:
            self.close(lease.lease_id)

    def set_phase(self, lease_id: str, phase: Phase | None) -> None:
        """From now on the lease's joules are of ``phase``."""
        with self._lock:
            lease = self._held(lease_id)
            self._leases[lease_id] = replace(lease, phase=phase)
            if self._takeover is not None:
                self._takeover.tell(lease_id, Told(phases=((self._clock_ns(), phase),)))
                return
            self._read_all(lease.devices)
            self._read_host()
            self._mark_edge((*lease.devices, *self._host))

    def close(self, lease_id: str) -> None:
        """End the lease and put back the power limits; closing one that is closed is harmless."""
        with self._lock:
            self._finish_takeover()
            lease = self._leases.pop(lease_id, None)
            if lease is None:
                return
            self._read_all(lease.devices)
            self._read_host()
            self._mark_edge((*lease.devices, *self._host))
            self._end(lease, self._clock_ns())

    def _end(self, lease: Lease, closed_ns: int) -> None:
        """What else ends with a lease than its claims."""
        self._meter.detach(lease)
        if self._usage is not None:
            self._usage.detach(lease)
        # The next tick looks again, so that the lease's last joules are booked without waiting.
        self._host_read_ns = None
        self._closed[lease.lease_id] = (lease, closed_ns)
        self._wishes.pop(lease.lease_id, None)
        self._unheard.discard(lease.lease_id)
        self._count_errors(self._caps.drop(lease.lease_id))

    @property
    def is_taking_over(self) -> bool:
        """Whether what happened since the state this agent took up is still to be booked."""
        return self._takeover is not None

    def is_open(self, lease_id: str) -> bool:
        """Whether the lease is open."""
        with self._lock:
            return lease_id in self._leases

    def is_settled(self, lease_id: str) -> bool:
        """Whether all joules of a closed lease are booked: its devices' counters moved since, or cannot be read."""
        with self._lock:
            if lease_id in self._leases:
                return False
            lease, closed_ns = self._closed.get(lease_id, (None, 0))
            devices = (*lease.devices, *self._host) if lease is not None else ()
            return all(self._is_settled(self._states[device], closed_ns) for device in devices)

    def lease_energy_mj(self, lease_id: str) -> int:
        """Millijoules booked to the lease so far, over all its devices."""
        with self._lock:
            return sum(state.book.booked_by_lease.get(lease_id, 0) for state in self._states.values())

    def speed(self, lease_id: str) -> float | None:
        """Pace of the lease's slowest device when simulated, else ``None``."""
        with self._lock:
            speeds = [self._meter.speed(device) for device in self._held(lease_id).devices]
            return min((speed for speed in speeds if speed is not None), default=None)

    def cap_watts(self, lease_id: str) -> float | None:
        """The limit the lease asked for on its devices, W; ``None`` when it asked for none."""
        with self._lock:
            wanted_mw = self._caps.wanted_mw(lease_id)
            return None if wanted_mw is None else wanted_mw / MW_PER_W

    def take_entries(self) -> list[EnergyEntry]:
        """Hand over the entries booked since the last call, but for what only a host's only agent may tell."""
        with self._lock:
            taken = [entry for state in self._states.values() for entry in state.book.take()]
            return [entry for entry in taken if entry.job_id is not None or self._is_told(entry.device)]

    def take(self) -> tuple[list[EnergyEntry], State]:
        """The entries booked since the last call, and the state in which another agent can go on from them."""
        with self._lock:
            if self._takeover is not None:
                # Nothing is booked yet since the state that is being taken over.
                return [], to_json(self._resumed)
            return self.take_entries(), to_json(self._state())

    def _state(self) -> NodeState:
        books = {uuid: state.book.standing() for uuid, state in self._states.items()}
        return NodeState(
            time_ns=self._clock_ns(),
            boot=self._boot,
            held=tuple(
                HeldLease(lease=lease, power=self._wishes[key][0], started=self._wishes[key][1])
                for key, lease in self._leases.items()
            ),
            closed=tuple(self._closed.values()),
            books={**self._absent, **{uuid: standing for uuid, standing in books.items() if standing is not None}},
            limits_mw=self._caps.originals_mw,
            meter=self._meter.memory() if isinstance(self._meter, RemembersMeter) else {},
            usage=None if self._usage is None else self._usage.memory(),
        )

    def snapshot(self) -> NodeSnapshot:
        """Read the devices now and say everything known."""
        with self._lock:
            self.tick()
            leases = [
                LeaseStatus(lease=x, energy_mj=self.lease_energy_mj(key), open=True) for key, x in self._leases.items()
            ]
            leases += [
                LeaseStatus(lease=x, energy_mj=self.lease_energy_mj(key), open=False)
                for key, (x, _) in self._closed.items()
            ]
            return NodeSnapshot(
                node=self.node,
                devices=tuple(_status(state, is_told=self._is_told(uuid)) for uuid, state in self._states.items()),
                leases=tuple(leases),
                read_seconds=self._read_seconds,
            )

    def close_all(self) -> None:
        """End every lease. Looking closely for as long as that helps then books their last joules."""
        with self._lock:
            self._finish_takeover()
            for lease_id in list(self._leases):
                self.close(lease_id)

    def shutdown(self) -> None:
        """Close every lease, book the rest, restore every limit, let go of the driver."""
        with self._lock:
            self.close_all()
            self._host_read_ns = None
            self.tick()
            self._meter.close()

    def _read(self, device: str) -> None:
        state = self._states[device]
        try:
            reading = self._meter.read(device)
        except MeterError:
            state.errors += 1
            state.last = None
            return
        state.last = reading
        if self._takeover is None:
            if state.sharers:
                state.book.weigh(use_by_lease(self._process_use(device), state.sharers, self._lineage))
            state.book.observe(reading)
        elif device not in self._host:
            self._takeover.readings.append(reading)

    def _process_use(self, device: str) -> Mapping[int, int]:
        """Busy ns by pid since the last time; empty where that is not known, so that sharers have equal parts."""
        try:
            return self._meter.process_use(device) or {}
        except MeterError:
            # The reading stands all the same.
            return {}

    def _read_all(self, devices: Iterable[str]) -> None:
        for device in devices:
            self._read(device)

    def _read_host(self) -> None:
        """Read the host's own devices, with who used them since the last time."""
        self._host_read_ns = self._clock_ns()
        if self._takeover is not None:
            # Who used them is known once it is known who held what.
            self._read_all(self._host)
            return
        try:
            used = self._usage.since() if self._usage is not None else {}
        except MeterError:
            for device in self._host:
                self._states[device].errors += 1
                self._states[device].last = None
            return
        for device in self._host:
            self._states[device].book.weigh(used)
            self._read(device)

    def _is_host_due(self) -> bool:
        """Whether it is time; a clock that was set back makes it so."""
        before_ns = self._host_read_ns
        return before_ns is None or not 0 <= self._clock_ns() - before_ns < HOST_EVERY_NS

    def _is_settled(self, state: _DeviceState, closed_ns: int) -> bool:
        """Whether a device's joules are booked up to ``closed_ns``.

        A counter of the host's own is current whenever it is read, so one that stands still drew nothing.
        """
        if state.last is None:
            return True
        is_current = state.device.uuid in self._host
        return (state.last.time_ns if is_current else state.book.settled_ns) >= closed_ns

    def _is_told(self, device: str) -> bool:
        """Whether this agent alone may tell what the device draws as a whole; other agents would count it again."""
        return self._only_agent or device not in self._host

    def _mark_edge(self, devices: Sequence[str]) -> None:
        now_ns = self._clock_ns()
        for device in devices:
            self._states[device].book.edge(now_ns, self._claims(device, self._leases.values()))
            self._note_sharers(self._states[device])
        if self._on_edge is not None:
            self._on_edge()

    def _claims(self, device: str, leases: Iterable[Lease]) -> tuple[Claim, ...]:
        return tuple(
            Claim(lease_id=lease.lease_id, job_id=lease.job_id, attempt=lease.attempt, phase=lease.phase)
            for lease in leases
            if device in lease.devices or device in self._host
        )

    def _resume(self, state: NodeState, told: Mapping[tuple[str, int], Told]) -> None:
        """Stand where the agent stood whose state this is; what happened since is booked once it is known."""
        for device, standing in state.books.items():
            if device in self._states:
                self._states[device].book.resume(standing)
            else:
                self._absent[device] = standing
        self._resumed = state
        self._closed = {lease.lease_id: (lease, closed_ns) for lease, closed_ns in state.closed}
        leases = [
            replace(held.lease, devices=tuple(device for device in held.lease.devices if device in self._states))
            for held in state.held
        ]
        self._leases = {lease.lease_id: lease for lease in leases}
        self._wishes = {held.lease.lease_id: (held.power, held.started) for held in state.held}
        living = [lease for lease in leases if self._is_alive(lease.lease_id)]
        if isinstance(self._meter, RemembersMeter):
            self._meter.recall(state.meter, living)
        if self._usage is not None and state.usage is not None:
            self._usage.recall(state.usage, living)
        wishes = [(lease, self._wishes[lease.lease_id][0]) for lease in living]
        self._count_errors(self._caps.resume(state.limits_mw, wishes))
        self._takeover = Takeover(
            since_ns=state.time_ns,
            held=leases,
            waiting={lease.lease_id for lease in living},
            deadline_ns=self._clock_ns() + RETURN_NS,
        )
        for lease in leases:
            left = told.get((lease.job_id, lease.attempt))
            if left is not None:
                self._takeover.tell(lease.lease_id, left)
            elif lease not in living:
                self._takeover.end(lease.lease_id, state.time_ns)

    def _finish_takeover(self) -> None:
        """Book what was drawn since the state that is taken over, by what has been told of the leases since."""
        takeover, self._takeover = self._takeover, None
        if takeover is None:
            return
        steps = takeover.steps()
        try:
            used = self._usage.since() if self._usage is not None else {}
        except MeterError:
            used = {}
        for device, state in self._states.items():
            edges = [(time_ns, self._claims(device, leases)) for time_ns, leases in steps]
            if device in self._host:
                play_host(state.book, edges, used, until_ns=self._clock_ns())
                self._read(device)
            else:
                play(state.book, edges, [reading for reading in takeover.readings if reading.device == device])
        is_open = {lease.lease_id: lease for lease in steps[-1][1]}
        for lease in list(self._leases.values()):
            if lease.lease_id not in is_open:
                del self._leases[lease.lease_id]
                self._end(lease, takeover.ended_ns(lease.lease_id) or takeover.since_ns)
        self._leases = is_open
        for state in self._states.values():
            self._note_sharers(state)
        self._unheard = takeover.waiting & is_open.keys()

    def _is_alive(self, lease_id: str) -> bool:
        """Whether the very process that opened the lease still runs."""
        started = self._wishes[lease_id][1]
        return started is not None and self._started(self._leases[lease_id].pid) == started

    def _forget_closed(self) -> None:
        """Leases that ended a while ago are in the log; nobody asks for them any more."""
        horizon_ns = self._clock_ns() - KEEP_CLOSED_NS
        kept = {key: value for key, value in self._closed.items() if value[1] >= horizon_ns}
        if len(kept) < len(self._closed):
            self._closed = kept
            for state in self._states.values():
                for lease_id in state.book.booked_by_lease.keys() - self._leases.keys() - kept.keys():
                    del state.book.booked_by_lease[lease_id]

    def _note_sharers(self, state: _DeviceState) -> None:
        """From now on the device is weighed if several hold it; what its processes used before is not asked."""
        holders = tuple(lease for lease in self._leases.values() if state.device.uuid in lease.devices)
        if len(holders) > 1 and not state.sharers:
            self._process_use(state.device.uuid)
        state.sharers = holders if len(holders) > 1 else ()

    def _held(self, lease_id: str) -> Lease:
        if lease_id not in self._leases:
            raise InputError(f"lease {lease_id} is not open on {self.node}; open one first.")
        return self._leases[lease_id]

    def _refuse_twice(self, request: LeaseRequest) -> None:
        for lease in self._leases.values():
            if (lease.job_id, lease.attempt) == (request.job_id, request.attempt):
                self._refuse(lease)

    def _refuse(self, lease: Lease) -> NoReturn:
        raise InputError(
            f"attempt {lease.attempt} of {lease.job_id} already holds a lease on {self.node} "
            f"(process {lease.pid}). Wait for it to end, or use another job id."
        )

    def _count_errors(self, devices: Iterable[str]) -> None:
        for device in devices:
            self._states[device].errors += 1


def _status(state: _DeviceState, *, is_told: bool) -> DeviceStatus:
    """A device whose last read failed shows no figure: nothing rather than stale data; nor does one not ours to tell.

    Without a counter its energy is what has been booked; a counter that is silent for once shows nothing, since
    another figure in its place would look like a reset.
    """
    last = state.last if is_told else None
    counted = state.device.method is not Method.INTEGRATED
    return DeviceStatus(
        device=state.device,
        up=state.last is not None,
        energy_mj=None if last is None else last.energy_mj if counted else state.book.booked_mj,
        power_mw=last.power_mw if last else None,
        limit_mw=last.limit_mw if last else None,
        utilization=last.utilization if last else None,
        read_errors=state.errors,
    )
