"""The books of one device: every joule its counter shows goes to a claim or to idle, and the books balance.

Pure: readings and edges come in, with their times; entries come out. A hardware counter refreshes every 20 to 100 ms,
so what it shows is a little old, and an edge (a lease opens, changes phase, closes) falls between two refreshes. The
increment that spans edges is split by the energy the power readings show on each side, in integers that add up to it.

Invariant, for any sequence of calls: ``booked_mj`` = sum of the entries = growth of the counter between the first and
the last reading at which it moved. Where the counter was reset, or told nothing for longer than ``GAP_NS``, the power
readings say what was drawn meanwhile, and the entries say so.

A device that several hold is split by what ``weigh`` was told each used, else equally. The host's own devices (CPU,
DRAM) are everybody's: what of them was not measured as somebody's is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from workers.contract import Device, EnergyEntry, Method, Phase, Quality, Reading
from workers.units import NS_PER_S, PJ_PER_MJ, apportion

GAP_NS = 2 * NS_PER_S
"""Readings further apart than this leave the power in between unknown: what they span is flagged ``gap``."""
REFRESH_NS = NS_PER_S // 10
"""No board's counter takes longer than this from one refresh to the next, so what it shows is no older.

The host's own (RAPL, a millisecond; the model, none) and a replayed log's are taken for current.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who holds the device: one attempt in one phase (``None`` before its first)."""

    lease_id: str
    job_id: str
    attempt: int
    phase: Phase | None


@dataclass(kw_only=True, slots=True)
class _Stretch:
    """Time between two edges, over which the claims were the same.

    ``drawn_pj`` is what the power readings show; ``used`` is each lease's measured use of the device, ``None`` everyone
    else's.
    """

    start_ns: int
    claims: tuple[Claim, ...]
    drawn_pj: int = 0
    used: dict[str | None, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a book stands: what another process needs to go on with it.

    Attributes:
        booked: everything up to this reading is in entries.
        stretches: from before it to now: when each began, its claims, and what each lease used of the device in it.
        left_pj: what power showed and is less than a millijoule, on a device without a counter.
        idle_mw: what the device draws idle, where that is known.
        booked_mj: sum of all entries; ``by_lease``: of those of each lease.
    """

    booked: Reading
    stretches: tuple[tuple[int, tuple[Claim, ...], Mapping[str | None, int]], ...]
    left_pj: int
    idle_mw: int | None
    booked_mj: int
    by_lease: Mapping[str, int]


class DeviceBook:
    """Books one device. Not thread-safe. A time before the last one is taken as the last: time never goes back."""

    def __init__(self, device: Device) -> None:
        self._device = device
        # Everything up to the reading ``_booked`` is in the entries; the rest is about the time since.
        self._booked: Reading | None = None
        self._last: Reading | None = None
        self._now_ns = 0
        self._stretches = [_Stretch(start_ns=0, claims=())]
        self._drawn_pj = 0
        self._blind = False
        self._turned = False
        # What the device draws when nobody holds it, and since when nobody has; ``None`` until it is known.
        self._idle_mw: int | None = None
        self._idle_since_ns = 0
        self._flags: set[Quality] = set()
        self._entries: list[EnergyEntry] = []
        self.booked_mj = 0
        self.booked_by_lease: dict[str, int] = {}

    @property
    def settled_ns(self) -> int:
        """Everything up to this time, the counter's last refresh, is booked; 0 before the first reading."""
        return self._booked.time_ns if self._booked else 0

    def observe(self, reading: Reading) -> None:
        """Take a reading; when the counter moved, book what it grew by."""
        reading = replace(reading, time_ns=self._forward(reading.time_ns))
        if self._booked is None or self._last is None:
            self._booked = self._last = reading
            self._idle_since_ns = max(self._idle_since_ns, reading.time_ns)
            return
        self._learn_idle(reading)
        if reading.time_ns - self._last.time_ns > GAP_NS:
            self._flags.add(Quality.GAP)
        if self._turned:
            # What was read at an edge tells of the time before it; the time after it is as the next reading says.
            self._last = replace(self._last, power_mw=reading.power_mw)
            self._turned = False
        before, now = self._booked.energy_mj, reading.energy_mj
        if before is None or now is None:
            self._draw(reading)
            self._observe_uncounted(self._booked, reading)
        elif now == before:
            self._draw(reading)
        else:
            self._draw(_at_refresh(self._last, reading, refresh_ns=0 if self._is_current else REFRESH_NS))
            if now > before:
                self._book(now - before, self._device.method)
            else:
                self._observe_reset(now)
            self._draw(reading)

    def _observe_reset(self, counted_since_mj: int) -> None:
        """The counter started anew: power bridges the reset, and where it is unknown too, the new count is a part."""
        self._flags |= {Quality.RESET, Quality.GAP} if self._blind else {Quality.RESET}
        if self._drawn_pj:
            self._book(self._drawn_pj // PJ_PER_MJ, self._integrated)
        else:
            self._book(counted_since_mj, self._device.method)

    def _observe_uncounted(self, booked: Reading, reading: Reading) -> None:
        """No counter on one side: what power shows, keeping what is less than a millijoule.

        A counter that has only just fallen silent is waited for, since its next value makes the books exact.
        """
        has_counter = self._device.method is not Method.INTEGRATED
        if has_counter and booked.energy_mj is not None and reading.time_ns - booked.time_ns <= GAP_NS:
            return
        if reading.power_mw is None and reading.energy_mj is None:
            return
        if has_counter:
            self._flags.add(Quality.FALLBACK)
        if self._blind:
            self._flags.add(Quality.GAP)
        drawn_mj, left_pj = divmod(self._drawn_pj, PJ_PER_MJ)
        self._book(drawn_mj, self._integrated)
        self._drawn_pj = left_pj

    @property
    def _integrated(self) -> Method:
        """The method of joules that power readings stand for."""
        return max(Method.INTEGRATED, self._device.method, key=lambda method: method.weakness)

    def edge(self, time_ns: int, claims: Sequence[Claim]) -> None:
        """From ``time_ns`` on the device is held by ``claims`` (none: idle). Observe a reading at the edge first."""
        self._stretches.append(_Stretch(start_ns=self._forward(time_ns), claims=tuple(claims)))
        self._idle_since_ns = self._stretches[-1].start_ns
        self._turned = True

    def weigh(self, used: Mapping[str | None, int]) -> None:
        """Note what each lease (``None``: anyone else) used of the device since it was last weighed or changed hands.

        In any unit, not negative. Weigh before observing the reading, and at every edge.
        """
        noted = self._stretches[-1].used
        for lease_id, amount in used.items():
            noted[lease_id] = noted.get(lease_id, 0) + amount

    def take(self) -> list[EnergyEntry]:
        """Hand over what was booked since the last call, neighbours of the same account merged."""
        taken, self._entries = merge(self._entries), []
        return taken

    def standing(self) -> Standing | None:
        """Where the book stands, with the entries that were taken; ``None`` before the first reading."""
        if self._booked is None:
            return None
        is_counted = self._device.method is not Method.INTEGRATED
        return Standing(
            booked=self._booked,
            stretches=tuple((stretch.start_ns, stretch.claims, dict(stretch.used)) for stretch in self._stretches),
            left_pj=0 if is_counted else self._drawn_pj % PJ_PER_MJ,
            idle_mw=self._idle_mw,
            booked_mj=self.booked_mj,
            by_lease=dict(self.booked_by_lease),
        )

    def resume(self, standing: Standing) -> None:
        """Go on, as a new book, where another stood that was lost: what was drawn since is flagged ``gap``."""
        self.observe(standing.booked)
        self._stretches = [
            _Stretch(start_ns=start_ns, claims=claims, used=dict(used)) for start_ns, claims, used in standing.stretches
        ]
        self._now_ns = max(self._now_ns, self._stretches[-1].start_ns)
        self._drawn_pj, self._idle_mw = standing.left_pj, standing.idle_mw
        self._flags.add(Quality.GAP)
        self.booked_mj, self.booked_by_lease = standing.booked_mj, dict(standing.by_lease)

    def _forward(self, time_ns: int) -> int:
        self._now_ns = max(self._now_ns, time_ns)
        return self._now_ns

    def _draw(self, reading: Reading) -> None:
        """Note what was drawn since the last reading, by the trapezoid rule, and in which stretches."""
        assert self._last is not None
        last, self._last = self._last, reading
        elapsed_ns = reading.time_ns - last.time_ns
        if last.power_mw is None or reading.power_mw is None:
            self._blind = True
            return
        energy_pj = (last.power_mw + reading.power_mw) * elapsed_ns // 2
        self._drawn_pj += energy_pj
        for stretch, begin_ns, end_ns in self._cut(last.time_ns, reading.time_ns):
            stretch.drawn_pj += energy_pj * (end_ns - begin_ns) // elapsed_ns

    def _cut(self, start_ns: int, end_ns: int) -> list[tuple[_Stretch, int, int]]:
        """The stretches within ``start_ns`` .. ``end_ns``, each with its begin and end there; empty ones left out."""
        ends = [stretch.start_ns for stretch in self._stretches[1:]] + [end_ns]
        cut = [
            (stretch, max(start_ns, stretch.start_ns), min(end_ns, until))
            for stretch, until in zip(self._stretches, ends, strict=True)
        ]
        return [(stretch, begin, end) for stretch, begin, end in cut if end > begin]

    def _book(self, energy_mj: int, method: Method) -> None:
        """Split ``energy_mj`` over the stretches since the counter last moved, and each over its claims."""
        assert self._booked is not None
        assert self._last is not None
        start_ns, end_ns = self._booked.time_ns, self._last.time_ns
        current = max(index for index, stretch in enumerate(self._stretches) if stretch.start_ns <= end_ns)
        spans = self._cut(start_ns, end_ns) or [(self._stretches[current], start_ns, end_ns)]
        weights = self._weights(energy_mj * PJ_PER_MJ, spans)
        for (stretch, begin, end), part_mj in zip(spans, apportion(energy_mj, weights), strict=True):
            self._enter(stretch, begin, end, part_mj, method)
        self.booked_mj += energy_mj
        self._booked = self._last
        self._drawn_pj = 0
        self._blind = False
        self._flags = set()
        now = _Stretch(start_ns=end_ns, claims=self._stretches[current].claims)
        self._stretches = [now, *self._stretches[current + 1 :]]

    def _weights(self, energy_pj: int, spans: Sequence[tuple[_Stretch, int, int]]) -> list[int]:
        """How an increment is split over its spans.

        A sensor's sample is as old as the counter, so at an edge neither tells what was drawn on its two sides. What
        the device draws idle is known from before: that much is idle's, and the rest is the claims'.
        """
        weights = [stretch.drawn_pj for stretch, _, _ in spans]
        if self._blind or not any(weights):
            # A stretch whose power is not known must not look as if it drew nothing.
            weights = [end - begin for _, begin, end in spans]
        claimed = sum(weight for weight, (stretch, _, _) in zip(weights, spans, strict=True) if stretch.claims)
        if self._idle_mw is None or not claimed:
            return weights
        idle = [0 if stretch.claims else self._idle_mw * (end - begin) for stretch, begin, end in spans]
        rest_pj = max(0, energy_pj - sum(idle))
        return [
            rest_pj * weight // claimed if stretch.claims else idle_pj
            for weight, idle_pj, (stretch, _, _) in zip(weights, idle, spans, strict=True)
        ]

    def _learn_idle(self, reading: Reading) -> None:
        """Note what the device draws idle, once its sensor looks back on nothing else."""
        looks_back_ns = (self._device.power_window_ms or 0) * NS_PER_S // 1000 + 2 * REFRESH_NS
        is_idle = len(self._stretches) == 1 and not self._stretches[0].claims
        if is_idle and reading.time_ns - self._idle_since_ns >= looks_back_ns and self._device.kind == "gpu":
            self._idle_mw = self._idle_mw if reading.power_mw is None else reading.power_mw

    def _enter(self, stretch: _Stretch, begin_ns: int, end_ns: int, energy_mj: int, method: Method) -> None:
        """One entry per account: a device that is shared says so."""
        accounts = self._accounts(stretch)
        weights = [weight for _, weight in accounts]
        is_shared = len(accounts) > 1 or (self._is_hosts and accounts[0][0] is not None)
        flags = frozenset(self._device.quality | self._flags | ({Quality.SHARED} if is_shared else set()))
        for (claim, weight), part_mj in zip(accounts, apportion(energy_mj, weights), strict=True):
            if claim is not None:
                self.booked_by_lease[claim.lease_id] = self.booked_by_lease.get(claim.lease_id, 0) + part_mj
            self._entries.append(
                EnergyEntry(
                    start_ns=begin_ns,
                    end_ns=end_ns,
                    device=self._device.uuid,
                    model=self._device.model,
                    kind=self._device.kind,
                    energy_mj=part_mj,
                    job_id=claim.job_id if claim else None,
                    attempt=claim.attempt if claim else None,
                    phase=claim.phase if claim else None,
                    share=weight / sum(weights),
                    method=method,
                    quality=flags,
                )
            )

    def _accounts(self, stretch: _Stretch) -> list[tuple[Claim | None, int]]:
        """Who a stretch is booked to, by which weights, of which at least one is not 0; ``None`` is nobody."""
        claimed = [(claim, stretch.used.get(claim.lease_id, 0)) for claim in stretch.claims]
        left = sum(stretch.used.values()) - sum(weight for _, weight in claimed)
        if claimed and any(stretch.used.values()):
            return [*claimed, (None, left)] if left else [*claimed]
        if self._is_hosts or not claimed:
            return [(None, 1)]
        return [(claim, 1) for claim, _ in claimed]

    @property
    def _is_current(self) -> bool:
        """Whether the counter shows this very moment, as a recording's and the host's do; a board's lags a refresh."""
        return self._is_hosts or self._device.method is Method.REPLAYED

    @property
    def _is_hosts(self) -> bool:
        """Whether the device serves the whole host, leases or not."""
        return self._device.kind != "gpu"


def _at_refresh(last: Reading, reading: Reading, *, refresh_ns: int) -> Reading:
    """``reading`` as of the refresh that made its counter differ from ``last``: some time between them, so the middle.

    Taking the counter for current would leave a job short by what it drew between the last refresh and its end: of a
    simulated H100's 200 ms at full power 7.5 % on the mean and 41 % at worst, instead of 0.3 % and 3.8 %.
    """
    elapsed_ns = reading.time_ns - last.time_ns
    ago_ns = min(elapsed_ns, refresh_ns) // 2
    power_mw = reading.power_mw
    if last.power_mw is not None and power_mw is not None and ago_ns:
        power_mw += (last.power_mw - power_mw) * ago_ns // elapsed_ns
    return replace(reading, time_ns=reading.time_ns - ago_ns, power_mw=power_mw)


def merge(entries: Sequence[EnergyEntry]) -> list[EnergyEntry]:
    """Join touching entries of one device, account, share, method and quality; energy and ends are kept exactly.

    Entries of one device and account come in order of time.
    """
    merged: dict[tuple[object, ...], EnergyEntry] = {}
    done: list[EnergyEntry] = []
    for entry in entries:
        key = (entry.device, entry.kind, entry.job_id, entry.attempt, entry.phase, entry.method, entry.quality)
        before = merged.get(key)
        if before is not None and before.end_ns == entry.start_ns and before.share == entry.share:
            merged[key] = replace(before, end_ns=entry.end_ns, energy_mj=before.energy_mj + entry.energy_mj)
            continue
        if before is not None:
            done.append(before)
        merged[key] = entry
    return sorted([*done, *merged.values()], key=lambda entry: (entry.start_ns, entry.end_ns, entry.job_id or ""))
