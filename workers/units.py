"""Exact conversions between the units of the ledger.

Energy that is *counted* is an ``int`` of millijoules, because that is what the hardware counts and because
integers add up. Energy that is *reported* is a ``float`` of kilowatt-hours. Every name carries its unit.
"""

from __future__ import annotations

from collections.abc import Sequence

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MJ_PER_J = 1_000
"""Millijoules in a joule (``mj`` is millijoules throughout, never megajoules)."""
MJ_PER_KWH = 3_600_000_000
"""Millijoules in a kilowatt-hour: 1 kWh = 3.6e6 J."""
PJ_PER_MJ = 1_000_000_000
"""Picojoules in a millijoule; milliwatts times nanoseconds are picojoules, so power integrates exactly."""
MW_PER_W = 1_000


def mj_to_kwh(energy_mj: int) -> float:
    """Millijoules to kilowatt-hours."""
    return energy_mj / MJ_PER_KWH


def mj_to_joules(energy_mj: int) -> float:
    """Millijoules to joules."""
    return energy_mj / MJ_PER_J


def kwh_to_joules(energy_kwh: float) -> float:
    """Kilowatt-hours to joules."""
    return energy_kwh * 3.6e6


def joules_to_kwh(energy_j: float) -> float:
    """Joules to kilowatt-hours."""
    return energy_j / 3.6e6


def mean_power_w(energy_kwh: float, duration_s: float) -> float | None:
    """Mean power in watts of ``energy_kwh`` over ``duration_s``; ``None`` when no time passed."""
    return kwh_to_joules(energy_kwh) / duration_s if duration_s > 0 else None


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` over ``weights`` in integers whose sum is exactly ``total`` (largest remainder).

    Weights are non-negative. When all are zero the parts are as equal as integers allow, since nothing is known
    that tells them apart. Ties of remainder go to the earlier part, so the same input gives the same split.

    Raises:
        ValueError: no weights, a negative weight, or a negative total.
    """
    if len(weights) == 1 and total >= 0 and weights[0] >= 0:
        # As nearly all are: an increment of one stretch, of one account.
        return [total]
    if not weights or total < 0 or any(weight < 0 for weight in weights):
        raise ValueError(f"cannot apportion {total} over {list(weights)}: both must be non-negative, and weights given")
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts
