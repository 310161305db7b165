"""The books of one device: every joule its counter shows goes to a claim or to idle, and the books balance.

Pure: readings and edges come in, with their times; entries come out. A hardware counter refreshes every 20 to 100 ms,
so what it shows is a little old, and an edge (a lease opens, changes phase, closes) falls between two refreshes. The
increment that spans edges is split by the energy the power readings show on each side, in integers that add up to it.
The split is as good as the times of the refreshes around the edge are known, so the book asks for close looks there.

Invariant, for any sequence of calls: ``booked_mj`` = sum of the entries = growth of the counter between the first and
the last reading at which it moved (in a watched book, what moved within ``CLOSELY_NS`` of an edge may wait for a closer
look). Where the counter was reset, or told nothing for longer than the device's ``gap_ms``, the power readings say what
was drawn meanwhile, and the entries say so.

A device that several hold is split by what ``weigh`` was told each used, else equally. The host's own devices (CPU,
DRAM) are everybody's: what of them was not measured as somebody's is nobody's.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workers.contract import Device, EnergyEntry, Method, Quality, Reading
from workers.telemetry.idle import IdlePower
from workers.telemetry.merging import merge
from workers.telemetry.refresh import CLOSE_NS, SLOWEST_NS, RefreshPeriod
from workers.telemetry.stretches import Claim, Span, Stretch, accounts_of, cut, weights_of
from workers.units import NS_PER_MS, PJ_PER_MJ, apportion

CLOSELY_NS = SLOWEST_NS * 5 // 2
"""For this long after an edge, or the first reading, close looks help: at least two refreshes come in it."""


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

    def released(self, time_ns: int) -> Standing:
        """The same, but that nobody holds the device from ``time_ns`` on."""
        if not self.stretches[-1][1]:
            return self
        return replace(self, stretches=(*self.stretches, (max(time_ns, self.stretches[-1][0]), (), {})))


class DeviceBook:
    """Books one device. Not thread-safe. A time before the last one is taken as the last: time never goes back.

    Args:
        device: the device.
        is_watched: somebody looks within milliseconds whenever ``wants_look``; what closer looks will tell is then
            waited for.
    """

    def __init__(self, device: Device, *, is_watched: bool = False) -> None:
        self._device = device
        # Readings further apart leave the power in between unknown: what they span is flagged ``gap``.
        self._gap_ns = device.gap_ms * NS_PER_MS
        self._is_watched = is_watched and not (_is_current(device) or device.method is Method.INTEGRATED)
        # Everything up to the reading ``_booked`` is in the entries; the rest is about the time since.
        self._booked: Reading | None = None
        self._last: Reading | None = None
        # Between these two was the refresh that is booked; the second is the last look that showed no later one.
        self._refreshed_ns = (0, 0)
        self._same_ns = self._counted_ns = self._looked_ns = self._now_ns = 0
        # What the counter showed last, and between which looks it moved to that.
        self._shown_mj: int | None = None
        self._moved_ns = (0, 0)
        # Whether it started anew since it was booked.
        self._is_reset = False
        self._period = RefreshPeriod()
        self._closely_until_ns = 0
        self._stretches = [Stretch(start_ns=0, claims=())]
        self._drawn_pj = self._witness_left_pj = 0
        self._blind = False
        # The first time it changed hands since the last reading.
        self._turned_ns: int | None = None
        self._early: Reading | None = None
        self._idle = IdlePower(looks_back_ns=(device.power_window_ms or 0) * NS_PER_MS + 2 * SLOWEST_NS)
        self._flags: set[Quality] = set()
        self._entries: list[EnergyEntry] = []
        self.booked_mj = 0
        self.booked_by_lease: dict[str, int] = {}

    @property
    def settled_ns(self) -> int:
        """Everything up to this time, the counter's last refresh, is booked; 0 before the first reading."""
        return self._booked.time_ns if self._booked else 0

    def wants_look(self, now_ns: int) -> bool:
        """Whether a look within milliseconds would tell what a later one cannot: when the counter is refreshed."""
        return now_ns < self._closely_until_ns

    def wants_count(self, now_ns: int) -> bool:
        """Whether the counter is to be looked at soon: an edge, or a reset, is not booked yet."""
        return self.wants_look(now_ns) or len(self._stretches) > 1 or self._is_reset

    def learn(self, time_ns: int) -> None:
        """Ask for close looks from now on, to learn how often the counter refreshes."""
        self._now_ns = max(self._now_ns, time_ns)
        self._look_closely()

    def observe(self, reading: Reading) -> None:
        """Take a reading; when the counter moved, book what it grew by."""
        reading = self._in_order(reading)
        if self._booked is None or self._last is None:
            self._begin(reading)
            return
        self._look(reading)
        counted_ns, self._counted_ns = self._counted_ns, reading.time_ns
        before, now = self._booked.energy_mj, reading.energy_mj
        if before is None or now is None:
            self._draw(reading)
            self._observe_uncounted(self._booked, reading)
        elif now == before:
            self._period.look(reading.time_ns, moved=False)
            self._same_ns = reading.time_ns
            self._follow(reading)
        else:
            self._observe_moved(counted_ns, reading, before, now)

    def sense(self, reading: Reading) -> None:
        """Take a reading of power alone, at which the counter was not looked at: nothing is booked."""
        reading = self._in_order(reading)
        if self._last is not None:
            self._look(reading)
            self._follow(reading)

    def _in_order(self, reading: Reading) -> Reading:
        """The reading, at a time that does not go back."""
        self._now_ns = max(self._now_ns, reading.time_ns)
        return reading if reading.time_ns == self._now_ns else replace(reading, time_ns=self._now_ns)

    def _look(self, reading: Reading) -> None:
        """What a reading tells whether its counter moved or not."""
        if self._is_idle and reading.power_mw is not None:
            self._idle.sensed(reading.time_ns, reading.power_mw)
        if reading.time_ns - self._looked_ns > self._gap_ns:
            self._flags.add(Quality.GAP)
        self._looked_ns = reading.time_ns

    def _follow(self, reading: Reading) -> None:
        """Note the power of a reading at which nothing is booked."""
        assert self._last is not None
        # The sensor is refreshed with the counter, so it hardly tells of the time since an edge yet.
        if self._turned_ns is None or reading.time_ns - self._last.time_ns > SLOWEST_NS:
            self._draw(reading)
        else:
            self._early = reading

    def _begin(self, reading: Reading) -> None:
        """The first reading of all: nothing is known of what was before it."""
        self._booked = self._last = reading
        self._refreshed_ns = reading.time_ns - self._refresh_ns, reading.time_ns
        self._same_ns = self._counted_ns = self._looked_ns = reading.time_ns
        self._idle.begin(reading.time_ns)
        self._look_closely()

    def _observe_moved(self, counted_ns: int, reading: Reading, before_mj: int, now_mj: int) -> None:
        """The counter moved since it was booked; ``counted_ns``: when it was looked at before."""
        assert self._last is not None
        moved, self._shown_mj = now_mj != self._shown_mj, now_mj
        self._period.look(reading.time_ns, moved=moved)
        if moved:
            self._moved_ns = max(counted_ns, reading.time_ns - self._refresh_ns), reading.time_ns
        bounds = self._moved_ns
        is_close = bounds[1] - bounds[0] <= CLOSE_NS
        if now_mj < before_mj and not self._is_reset:
            self._is_reset = True
            self._period.restart()
            self._look_closely()
        is_dated = is_close and self._period.known_ns is not None
        if (self._is_reset or len(self._stretches) > 1) and not is_dated and self.wants_look(reading.time_ns):
            # The next refresh will be seen closely; what spans the edge, or the reset, is known better then.
            self._draw(reading)
            return
        if is_dated:
            self._closely_until_ns = 0
        self._draw(self._as_of(max(self._last.time_ns, sum(bounds) // 2), reading))
        begun_ns = self._begun_ns() if is_close else None
        if self._is_reset:
            self._observe_reset(now_mj, begun_ns)
        else:
            self._book(now_mj - before_mj, self._device.method, begun_ns=begun_ns)
        self._draw(reading)
        self._refreshed_ns, self._same_ns = bounds, reading.time_ns

    def _as_of(self, time_ns: int, reading: Reading) -> Reading:
        """``reading`` as of the refresh that made its counter differ from the last: some time between, so the middle.

        Taking the counter for current would leave a job short by what it drew between the last refresh and its end: of
        a simulated H100's 200 ms at full power 7.5 % on the mean and 41 % at worst.
        """
        assert self._last is not None
        last, power_mw = self._last, reading.power_mw
        ago_ns, elapsed_ns = reading.time_ns - time_ns, reading.time_ns - self._last.time_ns
        if self._turned_ns is None and last.power_mw is not None and power_mw is not None and elapsed_ns:
            power_mw += (last.power_mw - power_mw) * ago_ns // elapsed_ns
        # Not ``replace``, which takes several times as long: this is done at every refresh.
        return Reading(
            device=reading.device,
            time_ns=time_ns,
            energy_mj=reading.energy_mj,
            power_mw=power_mw,
            limit_mw=reading.limit_mw,
            utilization=reading.utilization,
        )

    def _begun_ns(self) -> int | None:
        """When the refresh was that is booked, by the one seen closely just now; ``None``: no better than before."""
        assert self._last is not None
        period_ns = self._period.known_ns
        if period_ns is None:
            return None
        refreshed_ns = self._last.time_ns
        beats, into_ns = divmod(refreshed_ns - self._same_ns - 1, period_ns)
        beats += 1
        if period_ns - into_ns < CLOSE_NS // 2 or (into_ns < CLOSE_NS // 2 and beats > 1):
            # Refreshes were missed, and one more or less than that would fit as well.
            return None
        low_ns, high_ns = self._refreshed_ns
        return min(max(refreshed_ns - beats * period_ns, low_ns), high_ns)

    def _observe_reset(self, counted_since_mj: int, begun_ns: int | None) -> None:
        """The counter started anew: power bridges the reset, and where it is unknown too, the new count is a part.

        ``begun_ns``: when the last refresh before the reset was, where that is known better by now.
        """
        assert self._booked is not None
        assert self._last is not None
        self._is_reset = False
        self._flags |= {Quality.RESET, Quality.GAP} if self._blind else {Quality.RESET}
        if self._drawn_pj:
            drawn_pj, passed_ns = self._drawn_pj, self._last.time_ns - self._booked.time_ns
            if begun_ns is not None:
                drawn_pj = drawn_pj * (self._last.time_ns - begun_ns) // passed_ns
            self._book(drawn_pj // PJ_PER_MJ, self._integrated, begun_ns=begun_ns)
        else:
            self._book(counted_since_mj, self._device.method)

    def _observe_uncounted(self, booked: Reading, reading: Reading) -> None:
        """No counter on one side: what power shows, keeping what is less than a millijoule.

        A counter that has only just fallen silent is waited for, since its next value makes the books exact.
        """
        has_counter = self._device.method is not Method.INTEGRATED
        if has_counter and booked.energy_mj is not None and reading.time_ns - booked.time_ns <= self._gap_ns:
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
        self._now_ns = max(self._now_ns, time_ns)
        if self._early is not None:
            self._draw(self._early)
        self._stretches.append(Stretch(start_ns=self._now_ns, claims=tuple(claims)))
        self._idle.begin(self._now_ns)
        self._turned_ns = self._now_ns if self._turned_ns is None else self._turned_ns
        self._look_closely()

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
            idle_mw=self._idle.known_mw,
            booked_mj=self.booked_mj,
            by_lease=dict(self.booked_by_lease),
        )

    def resume(self, standing: Standing) -> None:
        """Go on, as a new book, where another stood that was lost: what was drawn since is flagged ``gap``."""
        self.observe(standing.booked)
        self._stretches = [
            Stretch(start_ns=start_ns, claims=claims, used=dict(used)) for start_ns, claims, used in standing.stretches
        ]
        self._now_ns = max(self._now_ns, self._stretches[-1].start_ns)
        self._drawn_pj, self._idle.known_mw = standing.left_pj, standing.idle_mw
        self._flags.add(Quality.GAP)
        self.booked_mj, self.booked_by_lease = standing.booked_mj, dict(standing.by_lease)

    def _look_closely(self) -> None:
        """Ask for close looks, where they tell something."""
        if self._is_watched:
            self._closely_until_ns = self._now_ns + CLOSELY_NS

    def _draw(self, reading: Reading) -> None:
        """Note what was drawn since the last reading, by the trapezoid rule, and in which stretches.

        Where the device changed hands since, the last reading tells of the time until then, and this one of the rest.
        """
        assert self._last is not None
        last, self._last, self._early = self._last, reading, None
        pieces = cut(self._stretches, last.time_ns, reading.time_ns)
        turned_ns = self._turned_ns
        if pieces:
            self._turned_ns = None
        if last.power_mw is None or reading.power_mw is None:
            self._blind = True
            return
        if turned_ns is None:
            elapsed_ns = reading.time_ns - last.time_ns
            energy_pj = (last.power_mw + reading.power_mw) * elapsed_ns // 2
            self._drawn_pj += energy_pj
            for stretch, begin_ns, end_ns in pieces:
                stretch.drawn_pj += energy_pj * (end_ns - begin_ns) // elapsed_ns
            return
        for stretch, begin_ns, end_ns in pieces:
            energy_pj = (last.power_mw if end_ns <= turned_ns else reading.power_mw) * (end_ns - begin_ns)
            stretch.drawn_pj += energy_pj
            self._drawn_pj += energy_pj

    def _book(self, energy_mj: int, method: Method, *, begun_ns: int | None = None) -> None:
        """Split ``energy_mj`` over the stretches since the counter last moved, and each over its claims.

        ``begun_ns``: when it last moved, where that is known better by now than it was then.
        """
        assert self._booked is not None
        assert self._last is not None
        start_ns, end_ns = self._booked.time_ns, self._last.time_ns
        current = bisect.bisect_right(self._stretches, end_ns, key=lambda stretch: stretch.start_ns) - 1
        spans = cut(self._stretches, start_ns, end_ns) or [(self._stretches[current], start_ns, end_ns)]
        weights = weights_of(
            spans,
            energy_pj=energy_mj * PJ_PER_MJ,
            begun_ns=start_ns if begun_ns is None else begun_ns,
            idle_mw=self._idle.known_mw,
            is_blind=self._blind,
        )
        witnessed = self._witnessed(spans, method)
        for (stretch, begin, end), part_mj, witness_mj in zip(
            spans, apportion(energy_mj, weights), witnessed, strict=True
        ):
            self._enter(stretch, begin, end, part_mj, method, witness_mj)
        self.booked_mj += energy_mj
        if self._is_idle:
            self._idle.booked(end_ns, self.booked_mj)
        self._booked = self._last
        self._refreshed_ns, self._same_ns = (end_ns, end_ns), end_ns
        self._drawn_pj = 0
        self._blind = False
        self._flags = set()
        now = Stretch(start_ns=end_ns, claims=self._stretches[current].claims)
        self._stretches = [now, *self._stretches[current + 1 :]]

    def _witnessed(self, spans: Sequence[Span], method: Method) -> Sequence[int | None]:
        """What power makes of each span, mJ; what is less than one is kept. ``None``: it tells nothing of its own."""
        if self._blind or method is not self._device.method or method is Method.INTEGRATED:
            return [None] * len(spans)
        witness_mj, self._witness_left_pj = divmod(self._drawn_pj + self._witness_left_pj, PJ_PER_MJ)
        return apportion(witness_mj, [stretch.drawn_pj for stretch, _, _ in spans])

    def _enter(
        self, stretch: Stretch, begin_ns: int, end_ns: int, energy_mj: int, method: Method, witness_mj: int | None
    ) -> None:
        """One entry per account: a device that is shared says so."""
        accounts = accounts_of(stretch, is_hosts=self._is_hosts)
        weights = [weight for _, weight in accounts]
        is_shared = len(accounts) > 1 or (self._is_hosts and accounts[0][0] is not None)
        flags = self._device.quality
        if self._flags or is_shared:
            flags |= self._flags | ({Quality.SHARED} if is_shared else set())
        witnessed = [None] * len(weights) if witness_mj is None else apportion(witness_mj, weights)
        parts = zip(accounts, apportion(energy_mj, weights), witnessed, strict=True)
        for (claim, weight), part_mj, part_witness_mj in parts:
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
                    witness_mj=part_witness_mj,
                )
            )

    @property
    def _refresh_ns(self) -> int:
        """How old what the counter shows may be."""
        return 0 if _is_current(self._device) else SLOWEST_NS

    @property
    def _is_idle(self) -> bool:
        """Whether nobody holds the board, nor did since the counter last moved."""
        return len(self._stretches) == 1 and not self._stretches[0].claims and not self._is_hosts

    @property
    def _is_hosts(self) -> bool:
        """Whether the device serves the whole host, leases or not."""
        return self._device.kind != "gpu"


def _is_current(device: Device) -> bool:
    """Whether its counter shows the very moment, as a recording's and the host's do; a board's lags a refresh."""
    return device.kind != "gpu" or device.method is Method.REPLAYED
