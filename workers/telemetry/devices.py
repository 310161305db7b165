"""A node's devices and the book of each: reads them, and tells the books what was read and who held what.

Not thread-safe: ``node`` holds its lock around every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from workers.contract import Device, EnergyEntry, Lease, Method, Reading
from workers.errors import MeterError
from workers.telemetry.booking import DeviceBook, Standing
from workers.telemetry.meter import PowerMeter
from workers.telemetry.sharing import use_by_lease
from workers.telemetry.snapshot import DeviceStatus
from workers.telemetry.stretches import Claim
from workers.telemetry.takeover import Step, play, play_host
from workers.telemetry.usage import HostUsage
from workers.units import NS_PER_MS, NS_PER_S

HOST_EVERY_NS = NS_PER_S
"""Time between looks at the host's own devices, edges apart: whose processor time it was takes many small files."""


@dataclass
class _Booked:
    """What the node knows of a device; ``last`` is ``None`` when the last read failed.

    ``counted_ns`` is when its counter told something last.
    ``sharers`` are the leases on it when they are several: its joules are split by what each used.
    """

    device: Device
    book: DeviceBook
    sharers: tuple[Lease, ...] = ()
    last: Reading | None = None
    counted_ns: int | None = None
    errors: int = 0


class DeviceBooks:
    """See the module. The arguments are ``NodeMeter``'s.

    Attributes:
        host: the host's own devices, which every lease has its part of.
    """

    def __init__(
        self,
        meter: PowerMeter,
        *,
        clock_ns: Callable[[], int],
        usage: HostUsage | None,
        only_agent: bool,
        lineage: Callable[[int], Iterable[int]],
        is_watched: bool,
    ) -> None:
        self._meter, self._clock_ns, self._lineage = meter, clock_ns, lineage
        self._usage, self._only_agent = usage, only_agent
        self._booked = {
            device.uuid: _Booked(device=device, book=DeviceBook(device, is_watched=is_watched))
            for device in meter.devices()
        }
        self.host = tuple(device.uuid for device in meter.devices() if device.kind != "gpu")
        self._host_read_ns: int | None = None
        # Where the books of devices stand that are not there now.
        self._absent: dict[str, Standing] = {}
        # What was read and is not booked yet, since it is not known who held what; ``None``: it is.
        self._held_back: list[Reading] | None = None

    def __contains__(self, device: str) -> bool:
        return device in self._booked

    def read_all(self, *, sparing: bool) -> None:
        """Every device once, the host's own where it is time; ``sparing``: so a counter too, where a look is dear."""
        now_ns = self._clock_ns()
        for device, booked in self._booked.items():
            if device in self.host:
                continue
            if sparing and not self._is_count_due(booked, now_ns):
                self._sense(device)
            else:
                self._read(device)
        if self._is_host_due():
            self._read_host()

    def read(self, devices: Iterable[str]) -> None:
        """These, and the host's own."""
        for device in devices:
            self._read(device)
        self._read_host()

    def learn(self) -> None:
        """Ask for close looks at every device, to learn how often it refreshes."""
        for booked in self._booked.values():
            booked.book.learn(self._clock_ns())

    def look_closely(self) -> bool:
        """Read the devices around whose edges every millisecond tells; whether there are any."""
        now_ns = self._clock_ns()
        wanting = [device for device, booked in self._booked.items() if booked.book.wants_look(now_ns)]
        for device in wanting:
            self._read(device)
        return bool(wanting)

    def look_at_host_next(self) -> None:
        """Whenever the host was read, ``read_all`` does so the next time."""
        self._host_read_ns = None

    def mark_edge(self, devices: Iterable[str], leases: Iterable[Lease]) -> None:
        """From now on ``leases`` hold what they hold; something changed on ``devices``, and on the host's own."""
        now_ns, leases = self._clock_ns(), tuple(leases)
        for device in (*devices, *self.host):
            self._booked[device].book.edge(now_ns, self._claims(device, leases))
            self._note_sharers(self._booked[device], leases)

    def is_settled(self, devices: Iterable[str], closed_ns: int) -> bool:
        """Whether the joules of these devices, and the host's own, are booked up to then, or cannot be read."""
        return all(self._is_settled(self._booked[device], closed_ns) for device in (*devices, *self.host))

    def energy_mj(self, lease_id: str) -> int:
        """Millijoules booked to the lease so far, over all its devices, those that are not there now included."""
        here = sum(booked.book.booked_by_lease.get(lease_id, 0) for booked in self._booked.values())
        return here + sum(standing.by_lease.get(lease_id, 0) for standing in self._absent.values())

    def forget(self, known: Iterable[str]) -> None:
        """What was booked to leases that are not ``known`` is in the log; nobody asks for it any more."""
        kept = set(known)
        for booked in self._booked.values():
            for lease_id in booked.book.booked_by_lease.keys() - kept:
                del booked.book.booked_by_lease[lease_id]

    def take_entries(self) -> list[EnergyEntry]:
        """Hand over the entries booked since the last call, but for what only a host's only agent may tell."""
        taken = [entry for booked in self._booked.values() for entry in booked.book.take()]
        return [entry for entry in taken if entry.job_id is not None or self._is_told(entry.device)]

    def standings(self) -> dict[str, Standing]:
        """Device to where its book stands, those that are not there now included."""
        standing = {device: booked.book.standing() for device, booked in self._booked.items()}
        return {**self._absent, **{device: stands for device, stands in standing.items() if stands is not None}}

    def statuses(self) -> tuple[DeviceStatus, ...]:
        """Each device as it was when it was read last."""
        return tuple(_status(booked, is_told=self._is_told(device)) for device, booked in self._booked.items())

    def count_errors(self, devices: Iterable[str]) -> None:
        """One more error of each."""
        for device in devices:
            self._booked[device].errors += 1

    def resume(self, standings: Mapping[str, Standing], since_ns: int) -> None:
        """Go on from where other books stood. What is read is held back until ``take_over`` says who held what.

        A device that is not there now is nobody's from ``since_ns`` on: it is in no lease any more.
        """
        for device, standing in standings.items():
            if device in self._booked:
                self._booked[device].book.resume(standing)
            else:
                self._absent[device] = standing.released(since_ns)
        self._held_back = []

    def take_over(self, steps: Sequence[Step]) -> None:
        """Book what was read since ``resume``: ``steps`` tell who held what from when on."""
        readings, self._held_back = self._held_back or [], None
        used = self._used() or {}
        for device, booked in self._booked.items():
            edges = [(time_ns, self._claims(device, leases)) for time_ns, leases in steps]
            if device in self.host:
                play_host(booked.book, edges, used, until_ns=self._clock_ns())
                self._read(device)
            else:
                play(booked.book, edges, [reading for reading in readings if reading.device == device])
            self._note_sharers(booked, steps[-1][1])

    def _is_count_due(self, booked: _Booked, now_ns: int) -> bool:
        """Whether a device's counter is to be looked at: always where that is cheap, or tells what no later look can.

        A clock that was set back makes it so, and so does a counter that told nothing.
        """
        every_ns, before_ns = booked.device.count_every_ms * NS_PER_MS, booked.counted_ns
        if self._held_back is not None or before_ns is None or booked.book.wants_count(now_ns):
            return True
        return not 0 <= now_ns - before_ns < every_ns

    def _sense(self, device: str) -> None:
        booked = self._booked[device]
        if (reading := self._ask(booked, self._meter.sense)) is not None:
            booked.book.sense(reading)

    def _read(self, device: str) -> None:
        booked = self._booked[device]
        if (reading := self._ask(booked, self._meter.read)) is None:
            return
        booked.counted_ns = None if reading.energy_mj is None else reading.time_ns
        if self._held_back is None:
            if booked.sharers:
                booked.book.weigh(use_by_lease(self._process_use(device), booked.sharers, self._lineage))
            booked.book.observe(reading)
        elif device not in self.host:
            self._held_back.append(reading)

    def _ask(self, booked: _Booked, look: Callable[[str], Reading]) -> Reading | None:
        """What a look tells; ``None``, and an error more, when it fails."""
        try:
            booked.last = look(booked.device.uuid)
        except MeterError:
            booked.errors += 1
            booked.last = booked.counted_ns = None
        return booked.last

    def _process_use(self, device: str) -> Mapping[int, int]:
        """Busy ns by pid since the last time; empty where that is not known, so that sharers have equal parts."""
        try:
            return self._meter.process_use(device) or {}
        except MeterError:
            # The reading stands all the same.
            return {}

    def _read_host(self) -> None:
        """Read the host's own devices, with who used them since the last time."""
        self._host_read_ns = self._clock_ns()
        # While readings are held back, who used them is told once it is known who held what.
        used = self._used() if self._held_back is None else {}
        for device in self.host:
            if used is None:
                self._booked[device].errors += 1
                self._booked[device].last = None
                continue
            self._booked[device].book.weigh(used)
            self._read(device)

    def _used(self) -> dict[str | None, int] | None:
        """What each lease used of the host since the last time; ``None`` when that cannot be read."""
        try:
            return self._usage.since() if self._usage is not None else {}
        except MeterError:
            return None

    def _is_host_due(self) -> bool:
        """Whether it is time; a clock that was set back makes it so."""
        before_ns = self._host_read_ns
        return before_ns is None or not 0 <= self._clock_ns() - before_ns < HOST_EVERY_NS

    def _is_settled(self, booked: _Booked, closed_ns: int) -> bool:
        """Whether a device's joules are booked up to ``closed_ns``.

        A counter of the host's own is current whenever it is read, so one that stands still drew nothing.
        """
        if booked.last is None:
            return True
        is_current = booked.device.uuid in self.host
        return (booked.last.time_ns if is_current else booked.book.settled_ns) >= closed_ns

    def _is_told(self, device: str) -> bool:
        """Whether this agent alone may tell what the device draws as a whole; other agents would count it again."""
        return self._only_agent or device not in self.host

    def _claims(self, device: str, leases: Iterable[Lease]) -> tuple[Claim, ...]:
        return tuple(
            Claim(lease_id=lease.lease_id, job_id=lease.job_id, attempt=lease.attempt, phase=lease.phase)
            for lease in leases
            if device in lease.devices or device in self.host
        )

    def _note_sharers(self, booked: _Booked, leases: Iterable[Lease]) -> None:
        """From now on the device is weighed if several hold it; what its processes used before is not asked."""
        holders = tuple(lease for lease in leases if booked.device.uuid in lease.devices)
        if len(holders) > 1 and not booked.sharers:
            self._process_use(booked.device.uuid)
        booked.sharers = holders if len(holders) > 1 else ()


def _status(booked: _Booked, *, is_told: bool) -> DeviceStatus:
    """A device whose last read failed shows no figure: nothing rather than stale data; nor does one not ours to tell.

    Without a counter its energy is what has been booked; a counter that is silent for once shows nothing, since
    another figure in its place would look like a reset.
    """
    last = booked.last if is_told else None
    counted = booked.device.method is not Method.INTEGRATED
    return DeviceStatus(
        device=booked.device,
        up=booked.last is not None,
        energy_mj=None if last is None else last.energy_mj if counted else booked.book.booked_mj,
        power_mw=last.power_mw if last else None,
        limit_mw=last.limit_mw if last else None,
        utilization=last.utilization if last else None,
        read_errors=booked.errors,
    )
