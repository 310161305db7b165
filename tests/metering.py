"""What tests of the meter share: a clock only they move, processes only they make busy, and short spellings."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from workers.contract import Device, EnergyEntry, Lease, Method, Phase, Quality, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.simulated import SimulatedMeter
from workers.telemetry.stretches import Claim
from workers.units import NS_PER_S

START_NS = 1_704_110_400 * NS_PER_S
MS = 1_000_000
"""Nanoseconds in a millisecond."""
CLEAN: frozenset[Quality] = frozenset()


class Clock:
    """Wall time in nanoseconds that passes when ``pass_ms`` says so; it may be set back, as real ones are."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, milliseconds: float) -> None:
        self.now_ns += round(milliseconds * MS)


class Processes:
    """Processor time used by processes, s, by pid; a pid that is not there is a process that is gone."""

    def __init__(self) -> None:
        self.used_s: dict[int, float] = {}

    def __call__(self, pid: int) -> float | None:
        return self.used_s.get(pid)

    def work(self, pid: int, seconds: float) -> None:
        self.used_s[pid] = self.used_s.get(pid, 0.0) + seconds


class MoodyMeter(SimulatedMeter):
    """Simulated boards of which those in ``broken`` cannot be read, and that refuse the next ``refusals`` limits."""

    def __init__(self, clock: Clock, *models: str, processes: Processes | None = None) -> None:
        super().__init__(models, node="n1", clock_ns=clock, cpu_seconds=processes or Processes())
        self.broken: set[str] = set()
        self.refusals = 0
        self.closed = False

    def read(self, device: str) -> Reading:
        if device in self.broken:
            raise MeterError(f"{device} has fallen off the bus. Check its power cable.")
        return super().read(device)

    def set_limit(self, device: str, limit_mw: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise CapError(f"the power limit of {device} cannot be set. Run the agent as root.")
        super().set_limit(device, limit_mw)

    def close(self) -> None:
        self.closed = True


class DearMeter(MoodyMeter):
    """The same, but that a look at a counter is dear, as on real boards; ``counted`` tells how often that was done."""

    def __init__(self, clock: Clock, *models: str, processes: Processes | None = None) -> None:
        super().__init__(clock, *models, processes=processes)
        self.counted: Counter[str] = Counter()

    def devices(self) -> tuple[Device, ...]:
        return tuple(replace(device, count_every_ms=1000) for device in super().devices())

    def read(self, device: str) -> Reading:
        self.counted[device] += 1
        return super().read(device)

    def sense(self, device: str) -> Reading:
        return replace(super().read(device), energy_mj=None)


def simulated(clock: Clock, *models: str, processes: Processes | None = None) -> SimulatedMeter:
    """A meter of simulated boards; nobody works on them unless ``processes`` do."""
    return SimulatedMeter(models, node="n1", clock_ns=clock, cpu_seconds=processes or Processes())


def device(method: Method = Method.COUNTER) -> Device:
    """A board of the given method."""
    return Device(uuid="GPU-1", index=0, model="H100", method=method)


def look(at_ms: float, energy_mj: int | None, power_w: float | None) -> Reading:
    """A reading ``at_ms`` after the start."""
    power_mw = None if power_w is None else round(power_w * 1000)
    return Reading(device="GPU-1", time_ns=START_NS + round(at_ms * MS), energy_mj=energy_mj, power_mw=power_mw)


def at(milliseconds: float) -> int:
    """The time ``milliseconds`` after the start, ns."""
    return START_NS + round(milliseconds * MS)


def claim(job_id: str, phase: Phase | None = Phase.TRAIN) -> Claim:
    """A claim of the only lease of a job."""
    return Claim(lease_id=f"lease-{job_id}", job_id=job_id, attempt=1, phase=phase)


def lease(job_id: str, devices: Sequence[str], *, pid: int = 7, cpus: float = 1.0) -> Lease:
    """A lease as a meter is told of it."""
    return Lease(
        lease_id=f"lease-{job_id}",
        job_id=job_id,
        attempt=1,
        devices=tuple(devices),
        pid=pid,
        cpus=cpus,
        opened_ns=START_NS,
    )


def brief(entries: Iterable[EnergyEntry]) -> list[tuple[float, float, int, str | None]]:
    """Entries as (start ms, end ms, energy mJ, job id)."""
    return [((e.start_ns - START_NS) / MS, (e.end_ns - START_NS) / MS, e.energy_mj, e.job_id) for e in entries]


def energy_by_job(entries: Iterable[EnergyEntry]) -> dict[str | None, int]:
    """Millijoules by job id; ``None`` is idle."""
    total: Counter[str | None] = Counter()
    for entry in entries:
        total[entry.job_id] += entry.energy_mj
    return dict(total)


def assert_covered_once(entries: Sequence[EnergyEntry], start_ns: int, end_ns: int) -> None:
    """One device's entries fill ``start_ns`` .. ``end_ns``: at each instant different accounts with all of it."""
    spans = [entry for entry in entries if entry.end_ns > entry.start_ns]
    edges = sorted({start_ns, end_ns, *(e.start_ns for e in spans), *(e.end_ns for e in spans)})
    assert (edges[0], edges[-1]) == (start_ns, end_ns)
    for begin, end in itertools.pairwise(edges):
        here = [e for e in spans if e.start_ns <= begin and e.end_ns >= end]
        assert math.isclose(sum(e.share for e in here), 1)
        assert len({(e.job_id, e.attempt, e.phase) for e in here}) == len(here)
