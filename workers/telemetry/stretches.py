"""Whose is the energy of a stretch of time, and how is a counter's growth split over several? Pure, in integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.contract import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who holds the device: one attempt in one phase (``None`` before its first)."""

    lease_id: str
    job_id: str
    attempt: int
    phase: Phase | None


@dataclass(kw_only=True, slots=True)
class Stretch:
    """Time between two edges, over which the claims were the same.

    ``drawn_pj`` is what the power readings show; ``used`` is each lease's measured use of the device, ``None`` everyone
    else's.
    """

    start_ns: int
    claims: tuple[Claim, ...]
    drawn_pj: int = 0
    used: dict[str | None, int] = field(default_factory=dict)


Span = tuple[Stretch, int, int]
"""A stretch, and the begin and end of the part of it that is meant, ns."""


def cut(stretches: Sequence[Stretch], start_ns: int, end_ns: int) -> list[Span]:
    """The stretches within ``start_ns`` .. ``end_ns``, each with its begin and end there; empty ones left out."""
    if len(stretches) == 1:
        # As nearly always: nobody came or went.
        (only,) = stretches
        begin_ns = max(start_ns, only.start_ns)
        return [(only, begin_ns, end_ns)] if end_ns > begin_ns else []
    ends = [stretch.start_ns for stretch in stretches[1:]] + [end_ns]
    parts = [
        (stretch, max(start_ns, stretch.start_ns), min(end_ns, until))
        for stretch, until in zip(stretches, ends, strict=True)
    ]
    return [(stretch, begin, end) for stretch, begin, end in parts if end > begin]


def weights_of(
    spans: Sequence[Span], *, energy_pj: int, begun_ns: int, idle_mw: int | None, is_blind: bool
) -> list[int]:
    """By which weights a counter's growth is split over its spans.

    A sensor's sample is as old as the counter, so at an edge neither tells what was drawn on its two sides. What the
    device draws idle is known from before: that much is idle's, and the rest is the claims'.

    Args:
        spans: what the growth spans, in order of time.
        energy_pj: the growth.
        begun_ns: when the growth began, as it is known by now.
        idle_mw: what the device draws when nobody holds it; ``None``: not known.
        is_blind: its power was not known all the time.
    """
    if len(spans) == 1:
        return [1]
    lengths = [end - begin for _, begin, end in spans]
    drawn = [stretch.drawn_pj for stretch, _, _ in spans]
    first_ns, lengths[0] = lengths[0], max(0, spans[0][2] - begun_ns)
    drawn[0] = drawn[0] * lengths[0] // first_ns
    # A stretch whose power is not known must not look as if it drew nothing.
    weights = lengths if is_blind or not any(drawn) else drawn
    claimed = sum(weight for weight, (stretch, _, _) in zip(weights, spans, strict=True) if stretch.claims)
    if idle_mw is None or not claimed:
        return weights
    idle = [0 if stretch.claims else idle_mw * length for length, (stretch, _, _) in zip(lengths, spans, strict=True)]
    rest_pj = max(0, energy_pj - sum(idle))
    return [
        rest_pj * weight // claimed if stretch.claims else idle_pj
        for weight, idle_pj, (stretch, _, _) in zip(weights, idle, spans, strict=True)
    ]


def accounts_of(stretch: Stretch, *, is_hosts: bool) -> list[tuple[Claim | None, int]]:
    """Who a stretch is booked to, by which weights, of which at least one is not 0; ``None`` is nobody.

    ``is_hosts``: the device serves the whole host, so what was not measured as somebody's is nobody's.
    """
    if not stretch.used:
        return [(None, 1)] if is_hosts or not stretch.claims else [(claim, 1) for claim in stretch.claims]
    claimed = [(claim, stretch.used.get(claim.lease_id, 0)) for claim in stretch.claims]
    left = sum(stretch.used.values()) - sum(weight for _, weight in claimed)
    if claimed and any(stretch.used.values()):
        return [*claimed, (None, left)] if left else [*claimed]
    if is_hosts or not claimed:
        return [(None, 1)]
    return [(claim, 1) for claim, _ in claimed]
