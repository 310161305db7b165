"""Meters one node: reads its devices, keeps its leases, books its joules, sets and restores its limits.

Synchronous and clockless but for the clock it is given; one lock makes it safe to call from the sampler's thread, the
lease server's threads and the exporter's alike.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping

from workers.contract import EnergyEntry, Lease, Phase
from workers.powercap.notes import LimitNotes
from workers.telemetry.caps import Caps
from workers.telemetry.devices import DeviceBooks
from workers.telemetry.journal import State
from workers.telemetry.leases import LeaseRequest, Leases
from workers.telemetry.meter import PowerMeter, RemembersMeter, find_device
from workers.telemetry.patience import BoundedLock
from workers.telemetry.procfs import lineage, started_ticks
from workers.telemetry.snapshot import LeaseStatus, NodeSnapshot
from workers.telemetry.state import NodeState, to_json
from workers.telemetry.takeover import Takeover, Told
from workers.telemetry.usage import HostUsage
from workers.units import MW_PER_W, NS_PER_S

KEEP_CLOSED_NS = 60 * NS_PER_S
"""How long a closed lease's counter stays in the snapshot, so that the last scrape sees its final value."""
RETURN_NS = 5 * NS_PER_S
"""How long a restarted agent waits for the attempts that hold leases to tell their phases; they try twice a second."""


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
        told: Mapping[tuple[str, int, int], Told] | None = None,
        started: Callable[[int], int | None] = started_ticks,
    ) -> None:
        self.node = node
        self.unmetered = dict(unmetered or {})
        self._meter, self._usage, self._clock_ns, self._on_edge = meter, usage, clock_ns, on_edge
        self._lock = BoundedLock()
        self._devices = DeviceBooks(
            meter,
            clock_ns=clock_ns,
            usage=usage,
            only_agent=only_agent,
            lineage=lineage,
            is_watched=on_edge is not None,
        )
        self._leases = Leases(node, started)
        self._caps = Caps(meter, notes or LimitNotes())
        self._read_seconds = 0.0
        self._boot = boot
        # While there is a takeover, the state it is from is the one to go on from.
        self._takeover: Takeover | None = None
        self._resumed = NodeState(time_ns=0, boot=boot)
        if resume is not None and resume.boot == boot:
            self._resume(resume, told or {})
        self.tick()

    def tick(self) -> None:
        """Read every device once, book what its counter shows, and put back limits nobody holds any more."""
        self._look(sparing=False)

    def sample(self) -> None:
        """What ``tick`` does, but that counters at which a look is dear are looked at once in a while alone."""
        self._look(sparing=True)

    def _look(self, *, sparing: bool) -> None:
        with self._lock:
            started = time.perf_counter()
            self._devices.read_all(sparing=sparing)
            self._read_seconds = time.perf_counter() - started
            self._devices.count_errors(self._caps.restore())
            if self._takeover is not None and self._takeover.is_over(self._clock_ns()):
                self._finish_takeover()
            for lease_id in self._leases.orphans():
                self.close(lease_id)
            if self._leases.forget_closed(before_ns=self._clock_ns() - KEEP_CLOSED_NS):
                self._devices.forget({*self._leases.open, *self._leases.closed})

    def learn(self) -> None:
        """Ask for close looks at every device, to learn how often it refreshes; none where another is taken over."""
        with self._lock:
            # What was drawn without an agent is split by what power shows, and waits for no closer look.
            if self._takeover is None:
                self._devices.learn()

    def look_closely(self) -> bool:
        """Read the devices around whose edges every millisecond tells; whether there are any."""
        with self._lock:
            return self._devices.look_closely()

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
            known = self._leases.of_rank(request)
            if known is not None and known.lease_id in self._leases.open:
                self._leases.refuse(known)
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
                rank=request.rank,
            )
            self._caps.hold(lease, request.power)
            self._devices.read(devices)
            self._meter.attach(lease)
            if self._usage is not None:
                self._usage.attach(lease)
            self._leases.enter(lease, request.power)
            self._mark_edge(devices)
            return lease

    def resume(self, request: LeaseRequest, told: Told) -> Lease:
        """An attempt is back that was without an agent: take up its lease where it is, or open it again.

        Raises:
            InputError: another process holds that lease.
            Everything ``open`` raises.
        """
        with self._lock:
            known = self._leases.of_rank(request)
            if known is None:
                return self.open(request)
            if known.pid != request.pid:
                self._leases.refuse(known)
            is_held = known.lease_id in self._leases.open
            if not is_held and told.closed_ns is None:
                return self.open(request, lease_id=known.lease_id)
            self._leases.heard(known.lease_id)
            if is_held:
                self._take_in(known, request.phase, told)
            return known

    def _take_in(self, lease: Lease, phase: Phase | None, told: Told) -> None:
        """What the holder of an open lease tells, which is in ``phase`` now."""
        if self._takeover is not None:
            self._takeover.tell(lease.lease_id, told)
            self._leases.change_phase(lease.lease_id, phase)
            self.tick()
        elif lease.phase != phase:
            self.set_phase(lease.lease_id, phase)
        if told.closed_ns is not None and lease.lease_id in self._leases.open and self._takeover is None:
            self.close(lease.lease_id)

    def set_phase(self, lease_id: str, phase: Phase | None) -> None:
        """From now on the lease's joules are of ``phase``."""
        with self._lock:
            lease = self._leases.change_phase(lease_id, phase)
            if self._takeover is not None:
                self._takeover.tell(lease_id, Told(phases=((self._clock_ns(), phase),)))
                return
            self._devices.read(lease.devices)
            self._mark_edge(lease.devices)

    def close(self, lease_id: str) -> None:
        """End the lease and put back the power limits; closing one that is closed is harmless."""
        with self._lock:
            self._finish_takeover()
            lease = self._leases.open.pop(lease_id, None)
            if lease is None:
                return
            self._devices.read(lease.devices)
            self._mark_edge(lease.devices)
            self._end(lease, self._clock_ns())

    def _end(self, lease: Lease, closed_ns: int) -> None:
        """What else ends with a lease than its claims."""
        self._meter.detach(lease)
        if self._usage is not None:
            self._usage.detach(lease)
        # So that the lease's last joules are booked without waiting.
        self._devices.look_at_host_next()
        self._leases.end(lease, closed_ns)
        self._devices.count_errors(self._caps.drop(lease.lease_id))

    def _mark_edge(self, devices: Iterable[str]) -> None:
        self._devices.mark_edge(devices, self._leases.open.values())
        if self._on_edge is not None:
            self._on_edge()

    @property
    def is_taking_over(self) -> bool:
        """Whether what happened since the state this agent took up is still to be booked."""
        return self._takeover is not None

    def is_open(self, lease_id: str) -> bool:
        """Whether the lease is open."""
        with self._lock:
            return lease_id in self._leases.open

    def is_settled(self, lease_id: str) -> bool:
        """Whether all joules of a closed lease are booked: its devices' counters moved since, or cannot be read."""
        with self._lock:
            if lease_id in self._leases.open:
                return False
            if lease_id not in self._leases.closed:
                return True
            lease, closed_ns = self._leases.closed[lease_id]
            return self._devices.is_settled(lease.devices, closed_ns)

    def lease_energy_mj(self, lease_id: str) -> int:
        """Millijoules booked to the lease so far, over all its devices."""
        with self._lock:
            return self._devices.energy_mj(lease_id)

    def speed(self, lease_id: str) -> float | None:
        """Pace of the lease's slowest device when simulated, else ``None``."""
        with self._lock:
            speeds = [self._meter.speed(device) for device in self._leases.held(lease_id).devices]
            return min((speed for speed in speeds if speed is not None), default=None)

    def models(self, lease: Lease) -> dict[str, str]:
        """Accelerator type of each of the lease's devices, by UUID, as far as they are here now."""
        return {device.uuid: device.model for device in self._meter.devices() if device.uuid in lease.devices}

    def cap_watts(self, lease_id: str) -> float | None:
        """The limit the lease asked for on its devices, W; ``None`` when it asked for none."""
        with self._lock:
            wanted_mw = self._caps.wanted_mw(lease_id)
            return None if wanted_mw is None else wanted_mw / MW_PER_W

    def take_entries(self) -> list[EnergyEntry]:
        """Hand over the entries booked since the last call, but for what only a host's only agent may tell."""
        with self._lock:
            return self._devices.take_entries()

    def take(self) -> tuple[list[EnergyEntry], State]:
        """The entries booked since the last call, and the state in which another agent can go on from them."""
        with self._lock:
            if self._takeover is not None:
                # Nothing is booked yet since the state that is being taken over.
                return [], to_json(self._resumed)
            return self.take_entries(), to_json(self._state())

    def _state(self) -> NodeState:
        return NodeState(
            time_ns=self._clock_ns(),
            boot=self._boot,
            held=self._leases.state(),
            closed=tuple(self._leases.closed.values()),
            books=self._devices.standings(),
            limits_mw=self._caps.originals_mw,
            meter=self._meter.memory() if isinstance(self._meter, RemembersMeter) else {},
            usage=None if self._usage is None else self._usage.memory(),
        )

    def snapshot(self) -> NodeSnapshot:
        """Read the devices now and say everything known."""
        with self._lock:
            self.tick()
            known = [(lease, True) for lease in self._leases.open.values()]
            known += [(lease, False) for lease, _ in self._leases.closed.values()]
            return NodeSnapshot(
                node=self.node,
                devices=self._devices.statuses(),
                leases=tuple(
                    LeaseStatus(lease=lease, energy_mj=self._devices.energy_mj(lease.lease_id), open=is_open)
                    for lease, is_open in known
                ),
                read_seconds=self._read_seconds,
            )

    def close_all(self) -> None:
        """End every lease. Looking closely for as long as that helps then books their last joules."""
        with self._lock:
            self._finish_takeover()
            for lease_id in list(self._leases.open):
                self.close(lease_id)

    def shutdown(self) -> None:
        """Close every lease, book the rest, restore every limit, let go of the driver."""
        with self._lock:
            self.close_all()
            self._devices.look_at_host_next()
            self.tick()
            self._meter.close()

    def _resume(self, state: NodeState, told: Mapping[tuple[str, int, int], Told]) -> None:
        """Stand where the agent stood whose state this is; what happened since is booked once it is known."""
        self._resumed = state
        self._devices.resume(state.books, state.time_ns)
        wishes = self._leases.resume(state, is_here=self._devices.__contains__)
        living = [lease for lease, _ in wishes]
        if isinstance(self._meter, RemembersMeter):
            self._meter.recall(state.meter, living)
        if self._usage is not None and state.usage is not None:
            self._usage.recall(state.usage, living)
        self._devices.count_errors(self._caps.resume(state.limits_mw, wishes))
        self._takeover = Takeover(
            since_ns=state.time_ns,
            held=list(self._leases.open.values()),
            waiting={lease.lease_id for lease in living},
            deadline_ns=self._clock_ns() + RETURN_NS,
        )
        for lease in self._leases.open.values():
            left = told.get((lease.job_id, lease.attempt, lease.rank))
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
        self._devices.take_over(steps)
        found = {lease.lease_id: lease for lease in steps[-1][1]}
        for lease in list(self._leases.open.values()):
            if lease.lease_id not in found:
                self._end(lease, takeover.ended_ns(lease.lease_id) or takeover.since_ns)
        self._leases.settle(found, takeover.waiting)
