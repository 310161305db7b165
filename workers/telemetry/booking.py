"""The books of one device: every joule its counter shows goes to a claim or to idle, and the books balance.

Pure: readings and edges come in, with their times; entries come out. A hardware counter refreshes every 20 to 100 ms,
so an edge (a lease opens, changes phase, closes) falls between two refreshes. The increment that spans edges is split
by the energy the power readings show on each side, in integers, so that the parts add up to the increment.

Invariant, for any sequence of calls: ``booked_mj`` = sum of the entries = growth of the counter between the first and
the last reading at which it moved (through a reset: plus what the power readings say was drawn meanwhile).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from workers.contract import Device, EnergyEntry, Method, Phase, Quality, Reading
from workers.units import NS_PER_S, PJ_PER_MJ, apportion

GAP_NS = 2 * NS_PER_S
"""Readings further apart than this leave the power in between unknown: what they span is flagged ``gap``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who holds the device: one attempt in one phase (``None`` before its first)."""

    lease_id: str
    job_id: str
    attempt: int
    phase: Phase | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stretch:
    """Time between two edges, over which the claims were the same."""

    start_ns: int
    claims: tuple[Claim, ...]


class DeviceBook:
    """Books one device. Not thread-safe; times never go back (a reading from before the last is ignored)."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._readings: list[Reading] = []
        self._stretches: list[_Stretch] = [_Stretch(start_ns=0, claims=())]
        self._integral_pj = 0
        self._entries: list[EnergyEntry] = []
        self.booked_mj = 0
        self.booked_by_lease: dict[str, int] = {}

    @property
    def settled_ns(self) -> int:
        """Everything up to this time is booked; 0 before the first reading."""
        return self._readings[0].time_ns if self._readings else 0

    def observe(self, reading: Reading) -> None:
        """Take a reading; when the counter moved, book what it grew by."""
        if not self._readings:
            self._readings = [reading]
            return
        last = self._readings[-1]
        if reading.time_ns < last.time_ns:
            return
        self._readings.append(reading)
        flags = {Quality.GAP} if reading.time_ns - last.time_ns > GAP_NS else set()
        before, now = self._readings[0].energy_mj, reading.energy_mj
        if before is None or now is None:
            self._observe_uncounted(last, reading, flags)
        elif now < before:
            drawn_pj = sum(_between_pj(self._readings))
            self._book(drawn_pj // PJ_PER_MJ if drawn_pj else now, self._device.method, flags | {Quality.RESET})
        elif now > before:
            self._book(now - before, self._device.method, flags)

    def _observe_uncounted(self, last: Reading, reading: Reading, flags: set[Quality]) -> None:
        """No counter on one side: integrate the power readings, keeping what is less than a millijoule."""
        if last.power_mw is None or reading.power_mw is None:
            return
        self._integral_pj += (last.power_mw + reading.power_mw) * (reading.time_ns - last.time_ns) // 2
        drawn_mj, self._integral_pj = divmod(self._integral_pj, PJ_PER_MJ)
        method = max(Method.INTEGRATED, self._device.method, key=lambda method: method.weakness)
        counted_before = self._readings[0].energy_mj is not None or reading.energy_mj is not None
        self._book(drawn_mj, method, flags | ({Quality.FALLBACK} if counted_before else set()))

    def edge(self, time_ns: int, claims: Sequence[Claim]) -> None:
        """From ``time_ns`` on the device is held by ``claims`` (none: idle). Observe a reading at the edge first."""
        self._stretches.append(_Stretch(start_ns=time_ns, claims=tuple(claims)))

    def take(self) -> list[EnergyEntry]:
        """Hand over what was booked since the last call, neighbours of the same account merged."""
        taken, self._entries = merge(self._entries), []
        return taken

    def _book(self, energy_mj: int, method: Method, flags: set[Quality]) -> None:
        """Split ``energy_mj`` over the stretches since the counter last moved, and each over its claims."""
        start_ns, end_ns = self._readings[0].time_ns, self._readings[-1].time_ns
        spans = self._spans(start_ns, end_ns)
        weights = [_energy_pj(self._readings, begin, end) for begin, end, _ in spans]
        if not any(weights):
            weights = [end - begin for begin, end, _ in spans]
        for span, part_mj in zip(spans, apportion(energy_mj, weights), strict=True):
            self._enter(span, part_mj, method, frozenset(flags))
        self.booked_mj += energy_mj
        self._readings = [self._readings[-1]]
        self._stretches = [_Stretch(start_ns=end_ns, claims=self._stretches[-1].claims)]

    def _spans(self, start_ns: int, end_ns: int) -> list[tuple[int, int, tuple[Claim, ...]]]:
        """The stretches cut to ``start_ns`` .. ``end_ns``; empty ones dropped, but never all of them."""
        ends = [stretch.start_ns for stretch in self._stretches[1:]] + [end_ns]
        spans = [
            (max(start_ns, stretch.start_ns), min(end_ns, until), stretch.claims)
            for stretch, until in zip(self._stretches, ends, strict=True)
        ]
        real = [span for span in spans if span[1] > span[0]]
        return real or [(start_ns, end_ns, self._stretches[-1].claims)]

    def _enter(
        self, span: tuple[int, int, tuple[Claim, ...]], energy_mj: int, method: Method, flags: frozenset[Quality]
    ) -> None:
        """One entry for idle, or one per claim: a shared device is split equally and says so."""
        begin, end, claims = span
        if len(claims) > 1:
            flags |= {Quality.SHARED}
        accounts: Sequence[Claim | None] = claims or (None,)
        for claim, part_mj in zip(accounts, apportion(energy_mj, [1] * len(accounts)), strict=True):
            if claim is not None:
                self.booked_by_lease[claim.lease_id] = self.booked_by_lease.get(claim.lease_id, 0) + part_mj
            self._entries.append(
                EnergyEntry(
                    start_ns=begin,
                    end_ns=end,
                    device=self._device.uuid,
                    model=self._device.model,
                    kind=self._device.kind,
                    energy_mj=part_mj,
                    job_id=claim.job_id if claim else None,
                    attempt=claim.attempt if claim else None,
                    phase=claim.phase if claim else None,
                    share=1 / len(accounts),
                    method=method,
                    quality=flags,
                )
            )


def merge(entries: Sequence[EnergyEntry]) -> list[EnergyEntry]:
    """Join touching entries of one device, account, share, method and quality; energy and ends are kept exactly."""
    merged: dict[tuple[object, ...], EnergyEntry] = {}
    done: list[EnergyEntry] = []
    for entry in entries:
        key = (entry.device, entry.kind, entry.job_id, entry.attempt, entry.phase, entry.method, entry.quality)
        before = merged.get(key)
        if before is not None and before.end_ns == entry.start_ns and before.share == entry.share:
            merged[key] = _joined(before, entry)
            continue
        if before is not None:
            done.append(before)
        merged[key] = entry
    return sorted([*done, *merged.values()], key=lambda entry: (entry.start_ns, entry.end_ns, entry.job_id or ""))


def _joined(first: EnergyEntry, second: EnergyEntry) -> EnergyEntry:
    return EnergyEntry(
        start_ns=first.start_ns,
        end_ns=second.end_ns,
        device=first.device,
        model=first.model,
        kind=first.kind,
        energy_mj=first.energy_mj + second.energy_mj,
        job_id=first.job_id,
        attempt=first.attempt,
        phase=first.phase,
        share=first.share,
        method=first.method,
        quality=first.quality,
    )


def _between_pj(readings: Sequence[Reading]) -> list[int]:
    """Energy between neighbouring readings by the trapezoid rule, pJ; 0 where a power is missing."""
    return [
        (a.power_mw + b.power_mw) * (b.time_ns - a.time_ns) // 2
        if a.power_mw is not None and b.power_mw is not None
        else 0
        for a, b in itertools.pairwise(readings)
    ]


def _energy_pj(readings: Sequence[Reading], begin_ns: int, end_ns: int) -> int:
    """What the power readings say was drawn between two times, pJ; a piece's energy is spread evenly over its time."""
    total = 0
    for (a, b), energy_pj in zip(itertools.pairwise(readings), _between_pj(readings), strict=True):
        overlap_ns = min(end_ns, b.time_ns) - max(begin_ns, a.time_ns)
        if overlap_ns > 0:
            total += energy_pj * overlap_ns // (b.time_ns - a.time_ns)
    return total
