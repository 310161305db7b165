"""CEGI: grams of CO2e per percent of quality gained per million trainable parameters (arXiv 2412.02602). Pure.

``CEGI = gCO2e / (gain % x trainable parameters / 1e6)``, lower is better. Dividing by trainable parameters flatters
full fine-tuning, so grams per percent go with it. What cannot be computed is ``None`` with a sentence that says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

GainMode = Literal["relative", "points"]

NO_BASELINE = "no baseline score was taken, so there is nothing to gain on"
NO_SCORE = "no score was taken after training"
NOT_A_NUMBER = "a score is not a finite number"
BASE_IS_ZERO = "the baseline score is 0, and a relative gain has no meaning; set accounting.cegi_gain to points"
NO_CARBON = "the carbon of the phases that count is not known"
ZERO_CARBON = "no carbon was counted in the phases that count"
NO_PARAMETERS = "no parameters were trained"
OUT_OF_RANGE = "the figure is beyond what a floating-point number holds"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What training did to the score. Exactly one of the two is ``None``.

    Attributes:
        percent: percent of the base, or points; positive is better.
        reason: why it is not known.
    """

    percent: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Cegi:
    """The figure of merit. ``value`` or ``reason`` is ``None``, never both.

    Attributes:
        value: gCO2e per percent gained per million trainable parameters; positive and finite.
        reason: why it is not known.
        g_per_percent: gCO2e per percent gained; known wherever carbon and a gain are.
    """

    value: float | None
    reason: str | None
    g_per_percent: float | None


def gain_percent(
    base: float | None, score: float | None, *, lower_is_better: bool = False, mode: GainMode = "relative"
) -> Gain:
    """How far ``score`` is better than ``base``.

    ``relative`` is ``100 (score - base) / |base|``; ``points`` is ``100 (score - base)``, for scores of 0 to 1.
    The sign is turned where less is better, so that a positive gain is always an improvement.
    """
    if base is None:
        return Gain(percent=None, reason=NO_BASELINE)
    if score is None:
        return Gain(percent=None, reason=NO_SCORE)
    if not (math.isfinite(base) and math.isfinite(score)):
        return Gain(percent=None, reason=NOT_A_NUMBER)
    if mode == "relative" and base == 0:
        return Gain(percent=None, reason=BASE_IS_ZERO)
    better = base - score if lower_is_better else score - base
    percent = 100 * better / abs(base) if mode == "relative" else 100 * better
    return Gain(percent=percent, reason=None) if math.isfinite(percent) else Gain(percent=None, reason=OUT_OF_RANGE)


def cegi(co2e_g: float | None, gain: Gain, trainable_parameters: int | None) -> Cegi:
    """The figure of a job.

    Args:
        co2e_g: gCO2e of the phases that count, PUE included; ``None`` where unknown.
        gain: from ``gain_percent``.
        trainable_parameters: logical parameters that were trained.
    """
    if gain.percent is None:
        return Cegi(value=None, reason=gain.reason, g_per_percent=None)
    if gain.percent <= 0:
        return Cegi(value=None, reason=no_gain(gain.percent), g_per_percent=None)
    if co2e_g is None or math.isnan(co2e_g):
        return Cegi(value=None, reason=NO_CARBON, g_per_percent=None)
    if co2e_g <= 0:
        return Cegi(value=None, reason=ZERO_CARBON, g_per_percent=None)
    per_percent = _in_range(co2e_g / gain.percent)
    if not trainable_parameters or trainable_parameters < 0:
        return Cegi(value=None, reason=NO_PARAMETERS, g_per_percent=per_percent)
    value = _in_range(co2e_g / gain.percent / (trainable_parameters / 1e6))
    return Cegi(value=value, reason=None if value is not None else OUT_OF_RANGE, g_per_percent=per_percent)


def no_gain(percent: float) -> str:
    """The sentence for a gain that is none."""
    return f"the score did not improve (gain {percent:.4g} %), so no carbon was spent per percent gained"


def _in_range(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None
