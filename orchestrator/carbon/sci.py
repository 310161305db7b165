"""Software Carbon Intensity (ISO/IEC 21031): SCI = ((E × I) + M) per R. Pure.

E is the facility's energy (PUE is in it), I the location-based intensity of the electricity, M the embodied carbon, R
the functional unit: an inference, a sample, a job. No offsets, and never a total without its unit.
"""

from __future__ import annotations


def sci_g(*, energy_kwh: float, pue: float, g_per_kwh: float, embodied_g: float, units: float) -> float:
    """Grams of CO2e per functional unit, of ``units`` of them that took ``energy_kwh`` of IT energy.

    Raises:
        ValueError: ``units`` is not positive: a rate per nothing.
    """
    if units <= 0:
        raise ValueError(f"SCI is a rate per functional unit; {units} of them is none.")
    return (energy_kwh * pue * g_per_kwh + embodied_g) / units
