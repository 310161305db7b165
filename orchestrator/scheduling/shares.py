"""How much of the cluster each user had lately: use that fades, so that yesterday's weighs half of today's. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

DAY_S = 86_400.0

Span = tuple[str | None, float, int, int | None]
"""User, GPUs held, start and end, ns since the epoch; ``None`` while they are held."""


def faded(
    usage: Mapping[str | None, float], elapsed_s: float, half_life_s: float = DAY_S
) -> Mapping[str | None, float]:
    """What ``decayed`` would give ``elapsed_s`` later for the same spans, all of which have ended."""
    weight = 2.0 ** (-elapsed_s / half_life_s)
    return {user: amount * weight for user, amount in usage.items()}


def decayed(spans: Iterable[Span], now_ns: int, half_life_s: float = DAY_S) -> Mapping[str | None, float]:
    """GPU-seconds of each user, each second weighed by 2^(-age / half-life): the exact integral over the spans.

    A span that began after ``now_ns`` counts as nothing, one that goes on counts until then.
    """
    scale_s = half_life_s / math.log(2)
    parts: defaultdict[str | None, list[float]] = defaultdict(list)
    for user, gpus, start_ns, end_ns in spans:
        last_ns = now_ns if end_ns is None else min(end_ns, now_ns)
        held_s, ago_s = max(0, last_ns - start_ns) / 1e9, (now_ns - last_ns) / 1e9
        # expm1 keeps the seconds of a short span that a difference of two exponentials would lose.
        parts[user].append(gpus * scale_s * math.exp(-ago_s / scale_s) * -math.expm1(-held_s / scale_s))
    return {user: math.fsum(sorted(amounts)) for user, amounts in parts.items()}
