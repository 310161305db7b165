"""What turns a job's energy into grams: intensity, yearly or hour by hour, and PUE, each with its source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.unknown import Unknown
from orchestrator.carbon.hourly import HourlySeries, Weighted, energy_by_hour, weigh
from orchestrator.carbon.intensity import Intensity, Pue, co2e_kg, facility_pue, intensity_of
from orchestrator.carbon.sources import HourlySources
from workers.contract import Accounting, EnergyEntry
from workers.errors import UnknownNameError
from workers.units import mj_to_kwh


@dataclass(frozen=True, kw_only=True)
class CarbonBasis:
    """What turns a job's energy into grams: kept apart, each with its source.

    Attributes:
        intensity: the region's yearly figure, which counts in every hour that is not known.
        hourly: the hours the manifest asked for; ``None`` where it wants the yearly figure.
    """

    intensity: Intensity
    pue: Pue
    hourly: HourlySeries | None = None

    @classmethod
    def of(cls, evidence: Evidence, sources: HourlySources | None = None) -> CarbonBasis | Unknown:
        """The basis a job's manifest asks for; unknown where its region is not in the table.

        Hours are looked for in ``sources``; where there are none, or they fail, the basis says so.
        """
        wanted = evidence.job.spec.accounting
        hours = () if wanted.intensity == "yearly" else energy_by_hour(map(_draw, evidence.entries))
        return cls.as_wanted(wanted, hours, run_id=evidence.job.run_id, sources=sources)

    @classmethod
    def as_wanted(
        cls, wanted: Accounting, hours: Collection[int], *, run_id: str, sources: HourlySources | None
    ) -> CarbonBasis | Unknown:
        """The same for energy drawn in ``hours`` (numbers since the epoch, UTC), of a job of that run."""
        try:
            intensity = intensity_of(_region(wanted))
        except UnknownNameError as error:
            return Unknown(str(error).rstrip("."))
        hourly = None
        if sources is not None and wanted.intensity != "yearly":
            hourly = sources.hourly(wanted, intensity, hours, run_id=run_id)
        return cls(intensity=intensity, pue=facility_pue(wanted.pue), hourly=hourly)

    def g_per_kwh(self, entries: Sequence[EnergyEntry]) -> float:
        """Mean intensity of what ``entries`` drew, weighted by energy, gCO2e per kWh."""
        weighted = self._weighted(entries)
        return self.intensity.g_per_kwh if weighted is None else weighted.g_per_kwh

    def kg(self, energy_kwh: float, entries: Sequence[EnergyEntry]) -> float:
        """Kilograms of CO2e of IT energy drawn when ``entries`` were, the facility's overhead included."""
        return co2e_kg(energy_kwh, self.pue.value, self.g_per_kwh(entries))

    def grams(self, energy_kwh: float, entries: Sequence[EnergyEntry]) -> float:
        """The same in grams."""
        return 1000 * self.kg(energy_kwh, entries)

    def by_hour(self, entries: Sequence[EnergyEntry]) -> tuple[float, ...]:
        """The figures of the hours ``entries`` were drawn in, g/kWh; empty where only the year's average is known."""
        weighted = self._weighted(entries)
        if self.hourly is None or weighted is None or not weighted.known:
            return ()
        hours = energy_by_hour(map(_draw, entries))
        return tuple(self.hourly.g_per_kwh.get(hour, self.intensity.g_per_kwh) for hour in sorted(hours))

    def source(self, entries: Sequence[EnergyEntry]) -> str:
        """Where the intensity of ``entries`` and the PUE come from, in words."""
        return f"{self._source_of_intensity(self._weighted(entries))}; PUE: {self.pue.source}"

    def of_hours(self, by_hour_mj: Mapping[int, int]) -> tuple[float, str]:
        """Kilograms of CO2e of energy by hour, the facility's overhead included, and where the factors come from."""
        weighted = None if self.hourly is None else weigh(by_hour_mj, self.hourly, self.intensity.g_per_kwh)
        g_per_kwh = self.intensity.g_per_kwh if weighted is None else weighted.g_per_kwh
        source = f"{self._source_of_intensity(weighted)}; PUE {self.pue.value:g}: {self.pue.source}"
        return co2e_kg(mj_to_kwh(sum(by_hour_mj.values())), self.pue.value, g_per_kwh), source

    def _source_of_intensity(self, weighted: Weighted | None) -> str:
        yearly = f"{self.intensity.region}: {self.intensity.source}"
        if self.hourly is None or weighted is None or not weighted.hours:
            return yearly
        why = f", since {self.hourly.trouble}" if self.hourly.trouble else ""
        if not weighted.known:
            return f"{yearly} (yearly{why or f', since {self.hourly.source} has none of the {weighted.hours} h'})"
        estimated = f", {weighted.provisional} of them estimated" if weighted.provisional else ""
        hours = f"{self.hourly.source} (hourly, {weighted.known} of {weighted.hours} h{estimated})"
        return hours if weighted.known == weighted.hours else f"{hours}; rest: {yearly} (yearly{why})"

    def _weighted(self, entries: Sequence[EnergyEntry]) -> Weighted | None:
        if self.hourly is None:
            return None
        return weigh(energy_by_hour(map(_draw, entries)), self.hourly, self.intensity.g_per_kwh)


def _region(wanted: Accounting) -> str | None:
    """The region of the yearly figure; a source of one country alone names it where the manifest does not."""
    return "GBR" if wanted.intensity == "uk" and wanted.region is None else wanted.region


def _draw(entry: EnergyEntry) -> tuple[int, int, int]:
    return entry.start_ns, entry.end_ns, entry.energy_mj
