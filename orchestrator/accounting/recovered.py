"""Energy of attempts whose node's log is lost, from what Prometheus scraped. Flagged ``fallback``, never unsaid.

The energy log is the authority where it is whole. Where an attempt held devices and the log shows none of them, or
there are holes in what it shows, the devices' counters say what was drawn, over the phases of the metric log; the
method is what the counter's label says.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.accounting.clocks import Clocks
from orchestrator.accounting.phases import PhaseSpan
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.samples import CounterCurve, Series, put_together
from orchestrator.lifecycle import AttemptRecord
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.telemetry.catalogue import DEVICE_ENERGY, LEASE_INFO
from workers.units import MJ_PER_J, NS_PER_S

HOLE_NS = NS_PER_S // 2
"""Entries of a lease follow each other without a break, one file a second; what is missing for longer is lost.

Before the first and after the last a counter's last refresh (0.1 s) may be missing without harm.
"""

Span = tuple[int, int]
"""Start and end, ns since the epoch."""


@dataclass(frozen=True, kw_only=True)
class Attempted:
    """An attempt, what the energy log has of its GPUs, and its phases by the metric log.

    Attributes:
        gpus: devices it was to hold.
        node_of: device to the node that metered it, for the devices of ``entries``.
    """

    job_id: str
    record: AttemptRecord
    gpus: int
    entries: tuple[EnergyEntry, ...]
    spans: tuple[PhaseSpan, ...]

    @property
    def known_span(self) -> Span | None:
        """From the first phase's start to the last one's end, by the node's clock; ``None`` without phases."""
        if not self.spans:
            return None
        return min(span.start_ns for span in self.spans), max(span.end_ns for span in self.spans)

    @property
    def holes(self) -> tuple[tuple[str, Span], ...]:
        """Device and time of what is missing between its entries, and around them as far as its phases reach."""
        return tuple(
            (device, hole)
            for device in dict.fromkeys(entry.device for entry in self.entries)
            for hole in _holes([entry for entry in self.entries if entry.device == device], self.known_span)
        )

    @property
    def is_whole(self) -> bool:
        """Whether the log shows as many devices as it was to hold, without a hole."""
        return len({entry.device for entry in self.entries}) >= self.gpus and not self.holes


def recover(attempted: Attempted, prometheus: PrometheusClient, clocks: Clocks) -> tuple[EnergyEntry, ...]:
    """Entries for what the log lacks of one attempt that ended; none where Prometheus does not know either.

    Raises:
        UnreachableError: the server does not answer.
    """
    found: list[EnergyEntry] = []
    for device, hole in attempted.holes:
        (like, *_) = [entry for entry in attempted.entries if entry.device == device]
        found += _entries(attempted, prometheus, device, hole, clocks, share=like.share)
    logged = {entry.device for entry in attempted.entries}
    if len(logged) < attempted.gpus:
        for device, span, share in _held(attempted, prometheus):
            if device not in logged:
                found += _entries(attempted, prometheus, device, span, clocks, share=share)
    return tuple(found)


def _holes(entries: Sequence[EnergyEntry], around: Span | None) -> list[Span]:
    ordered = sorted((entry.start_ns, entry.end_ns) for entry in entries)
    ends = list(itertools.accumulate((end for _, end in ordered), max))
    breaks = [(end, start) for end, (start, _) in zip(ends, ordered[1:], strict=False)]
    if around is not None:
        breaks = [(around[0], ordered[0][0]), *breaks, (ends[-1], around[1])]
    return [(start, end) for start, end in breaks if end - start > HOLE_NS]


def _held(attempted: Attempted, prometheus: PrometheusClient) -> list[tuple[str, Span, float]]:
    """The devices that leases of the attempt named, since when until when, and the attempt's share of each.

    The phases tell the time better than scrapes of the lease do; without them the lease's samples have to.
    """
    begun_ns, over_ns = attempted.known_span or (attempted.record.started_ns, attempted.record.ended_ns or 0)
    named = {"job_id": attempted.job_id, "attempt": str(attempted.record.number)}
    leases: dict[str, list[Series]] = {}
    for series in prometheus.series(LEASE_INFO.name, named, begun_ns, over_ns):
        leases.setdefault(series.labels.get("device", ""), []).append(series)
    held = []
    for device, own in sorted(leases.items()):
        times = [time_ns for series in own for time_ns, _ in series.samples]
        if device and times:
            span = attempted.known_span or (min(times), max(times))
            held.append((device, span, 1 / _holders(device, (min(times), max(times)), prometheus)))
    return held


def _holders(device: str, span: Span, prometheus: PrometheusClient) -> int:
    """How many attempts held a device at once at most while ``span`` lasted: a shared one is split equally."""
    at_once: dict[int, set[tuple[str, str]]] = {}
    for series in prometheus.series(LEASE_INFO.name, {"device": device}, *span):
        holder = series.labels.get("job_id", ""), series.labels.get("attempt", "")
        for time_ns, _ in series.samples:
            if span[0] <= time_ns <= span[1]:
                at_once.setdefault(time_ns, set()).add(holder)
    return max((len(holders) for holders in at_once.values()), default=1)


def _entries(
    attempted: Attempted, prometheus: PrometheusClient, device: str, span: Span, clocks: Clocks, *, share: float
) -> list[EnergyEntry]:
    """What a device's counter grew by over ``span``, cut at the edges of phases; nothing where it is not known."""
    series = prometheus.series(DEVICE_ENERGY.name, {"device": device}, *span)
    curve = CounterCurve(put_together(series))
    if curve.span is None:
        return []
    labels = series[0].labels
    offset_ns = clocks.offset_ns(labels.get("node"), span[0]) if attempted.spans or attempted.entries else 0
    # What the samples do not reach is not made up: it is left out, and said to be missing.
    start_ns, end_ns = max(span[0], curve.span[0] + offset_ns), min(span[1], curve.span[1] + offset_ns)
    inside = {edge for one in attempted.spans for edge in (one.start_ns, one.end_ns) if start_ns < edge < end_ns}
    edges = sorted({start_ns, end_ns, *inside})
    shown = [curve.at(edge - offset_ns) for edge in edges]
    flags = {Quality.FALLBACK}
    flags |= {Quality.GAP} if (start_ns, end_ns) != span or None in shown else set()
    flags |= {Quality.SHARED} if share < 1 else set()
    flags |= {Quality.RESET} if curve.was_reset(start_ns - offset_ns, end_ns - offset_ns) else set()
    whole = EnergyEntry(
        start_ns=start_ns,
        end_ns=end_ns,
        device=device,
        model=labels.get("model", "unknown"),
        kind=labels.get("kind", "gpu"),
        energy_mj=0,
        job_id=attempted.job_id,
        attempt=attempted.record.number,
        phase=None,
        share=share,
        method=_method(labels.get("method")),
        quality=frozenset(flags),
    )
    return _cut(whole, list(zip(edges, shown, strict=True)), attempted.spans)


def _cut(
    whole: EnergyEntry, marks: Sequence[tuple[int, float | None]], spans: Sequence[PhaseSpan]
) -> list[EnergyEntry]:
    """An entry for each stretch between two marks (time of the node, counter in J) that both are known."""
    return [
        replace(
            whole,
            start_ns=start_ns,
            end_ns=end_ns,
            # Rounded as they stand, not as differences, so that the parts add up to the whole.
            energy_mj=round(after * whole.share * MJ_PER_J) - round(before * whole.share * MJ_PER_J),
            phase=_phase_of(spans, start_ns, end_ns),
        )
        for (start_ns, before), (end_ns, after) in itertools.pairwise(marks)
        if before is not None and after is not None
    ]


def _phase_of(spans: Sequence[PhaseSpan], start_ns: int, end_ns: int) -> Phase | None:
    return next((span.phase for span in spans if span.start_ns <= start_ns and end_ns <= span.end_ns), None)


def _method(label: str | None) -> Method:
    """What the counter says of itself; one that says nothing we know is taken for the weakest that is measured."""
    return Method(label) if label in list(Method) else Method.MODELLED
