"""How far off may CO2e and CEGI be? An interval, and what it is made of. Pure.

Two parts are bounds, not spreads: how far the meters disagree, and the range of the intensity. They are multiplied,
so the interval holds whenever each part's does. A part that is not known is named, with the reason, and adds nothing:
the interval is then of the known parts alone, and says so. The spread over seeds is ``compare``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.unknown import Unknown, known
from orchestrator.accounting.witness import Witness
from workers.contract import EnergyEntry

METERING = "metering"
INTENSITY = "carbon intensity"
NOTHING_KNOWN = "how far off it may be is not known by any of its parts"
NO_SECOND_METER = "no second meter: Prometheus gave no figure, and no counter has power readings beside it"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source of uncertainty.

    Attributes:
        low: the least the figure may be by it, as a factor; ``high``: the most. 1 is the figure itself.
        source: what it was taken from; or, where it is not known, why: the factors are then 1 and ``known`` false.
    """

    name: str
    low: float
    high: float
    source: str
    known: bool = True

    def as_dict(self) -> dict[str, object]:
        """JSON-ready, in percent of the figure."""
        if not self.known:
            return {"part": self.name, "low_percent": None, "high_percent": None, "reason": self.source}
        low, high = 100 * (self.low - 1), 100 * (self.high - 1)
        return {"part": self.name, "low_percent": low, "high_percent": high, "source": self.source}


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a figure may be, as factors of it, and the parts that this is made of."""

    parts: tuple[Part, ...]

    @property
    def low(self) -> float:
        """The least, as a factor."""
        return math.prod(part.low for part in self.parts)

    @property
    def high(self) -> float:
        """The most, as a factor."""
        return math.prod(part.high for part in self.parts)

    def of(self, value: float | None) -> dict[str, float] | None:
        """The interval of a figure; ``None`` where the figure or every part is not known."""
        if value is None or not any(part.known for part in self.parts):
            return None
        return {"low": value * self.low, "high": value * self.high}


def metering(evidence: Evidence, witness: Witness) -> Part:
    """From the energy log's figure to what its second meters say: the interval holds all of them."""
    total = evidence.total()
    if isinstance(total, Unknown) or not total.energy_mj:
        reason = total.reason if isinstance(total, Unknown) else "no energy was counted"
        return Part(name=METERING, low=1.0, high=1.0, source=reason, known=False)
    gpu_share = sum(window.energy_mj for window in evidence.logged_windows) / total.energy_mj
    seconds = {"Prometheus": witness.disagreement_percent, "power readings": power_disagreement_percent(evidence)}
    known = {name: percent for name, percent in seconds.items() if percent is not None}
    if not known:
        return Part(name=METERING, low=1.0, high=1.0, source=NO_SECOND_METER, known=False)
    factors = [1.0, *(1 + percent / 100 * gpu_share for percent in known.values())]
    source = " and ".join(f"{name} {percent:+.3g} %" for name, percent in known.items())
    return Part(name=METERING, low=max(0.0, min(factors)), high=max(factors), source=f"{source} of GPU energy")


def power_disagreement_percent(evidence: Evidence) -> float | None:
    """100 (integrated power - counter) / counter, of the GPU entries that have both; ``None`` where none has."""
    both = [entry for entry in evidence.entries if entry.kind == "gpu" and entry.witness_mj is not None]
    counted = sum(entry.energy_mj for entry in both)
    return 100 * (_witnessed_mj(both) - counted) / counted if counted else None


def _witnessed_mj(entries: Sequence[EnergyEntry]) -> int:
    return sum(entry.witness_mj or 0 for entry in entries)


def intensity_part(g_per_kwh: float | None, by_hour: Sequence[float], *, reason: str) -> Part:
    """The least and the most of the hours' figures, around the mean that counts.

    Args:
        g_per_kwh: the mean; ``None`` where it is not known.
        by_hour: figures of the hours the job drew in; empty where only a yearly average is known.
        reason: why they are not known.
    """
    if not g_per_kwh or not by_hour:
        return Part(name=INTENSITY, low=1.0, high=1.0, source=reason, known=False)
    low, high = min(by_hour), max(by_hour)
    return Part(
        name=INTENSITY,
        low=min(1.0, low / g_per_kwh),
        high=max(1.0, high / g_per_kwh),
        source=f"{low:.4g} to {high:.4g} g/kWh over {len(by_hour)} h",
    )


def intervals(row: ReportRow, found: Range) -> Mapping[str, object]:
    """The intervals of a row's CO2e and CEGI, with what they are made of."""
    return {
        "co2e_kg": known(found.of(row.co2e_kg), row.reasons.get("co2e_kg", NOTHING_KNOWN)),
        "cegi_g": known(found.of(row.cegi_g), row.reasons.get("cegi_g", NOTHING_KNOWN)),
        "parts": [part.as_dict() for part in found.parts],
    }
