"""What is known of accelerator models, as data: the physics of a simulated board of each type.

``tdp_w`` and ``fp32_tflops`` are the maker's published figures (the source is named per row). ``idle_w`` and
``min_limit_w`` are not: they are what idle boards with a loaded driver commonly report, and the lowest limit boards
take by ``nvidia-smi -q -d POWER``. Boards differ by several watts and by firmware, so both are assumptions of the
simulation, not facts about your board. ``refresh_ms`` is the sensors' refresh (20 to 100 ms on measured boards).

``sample_window_ms``: A100 and H100 sample power for 25 of every 100 ms (Yang, Adamek, Armour, "Part-time Power
Measurements", arXiv 2312.02741); the H200, of the H100's architecture, is assumed to do the same, and the others to
sample all the time. ``usage_average_ms``: by NVML's reference ``nvmlDeviceGetPowerUsage`` is averaged over 1 s on
Ampere (but for GA100) and newer; before, it is the latest sample. ``has_counter``: by the same reference
``nvmlDeviceGetTotalEnergyConsumption`` is for Volta and newer.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.errors import UnknownNameError

REFERENCE_FP32_TFLOPS = 66.9
"""Peak FP32 of the H100 SXM: a simulated H100 runs at this host's own pace, others in proportion."""

CAP_SPEED_EXPONENT = 0.39
"""Speed under a cap = (dynamic power left / dynamic power wanted) ** 0.39.

Least-squares fit over 299 pairs of (time per epoch, mean power) of six training workloads on a V100 at power limits
of 100 to 250 W, published with Zeus (You et al., NSDI 2023), idle taken as 30 W; rms error 9 % of the speed.
"""


@dataclass(frozen=True, kw_only=True)
class BoardProfile:
    """One accelerator type. Powers in watts, peak in FP32 TFLOP/s, times in milliseconds.

    Attributes:
        refresh_ms: how often counter and power are refreshed.
        sample_window_ms: how much of each refresh the power sensor sees, up to the refresh itself.
        usage_average_ms: what NVML's plain power reading is averaged over; 0: not averaged.
        has_counter: whether it counts its energy.
        has_instant: whether NVML has the board's instantaneous power as a field.
    """

    model: str
    idle_w: int
    tdp_w: int
    min_limit_w: int
    fp32_tflops: float
    refresh_ms: int
    sample_window_ms: int
    usage_average_ms: int
    source: str
    has_counter: bool = True
    has_instant: bool = True

    @property
    def speed(self) -> float:
        """Pace of simulated work on this board, as a share of this host's; 1 at most."""
        return min(1.0, self.fp32_tflops / REFERENCE_FP32_TFLOPS)


PROFILES: dict[str, BoardProfile] = {
    profile.model: profile
    for profile in (
        BoardProfile(
            model="H100",
            idle_w=70,
            tdp_w=700,
            min_limit_w=200,
            fp32_tflops=66.9,
            refresh_ms=100,
            sample_window_ms=25,
            usage_average_ms=1000,
            source="NVIDIA H100 SXM5 data sheet",
        ),
        BoardProfile(
            model="H200",
            idle_w=75,
            tdp_w=700,
            min_limit_w=200,
            fp32_tflops=66.9,
            refresh_ms=100,
            sample_window_ms=25,
            usage_average_ms=1000,
            source="NVIDIA H200 SXM data sheet",
        ),
        BoardProfile(
            model="A100-80GB",
            idle_w=55,
            tdp_w=400,
            min_limit_w=100,
            fp32_tflops=19.5,
            refresh_ms=100,
            sample_window_ms=25,
            usage_average_ms=0,
            source="NVIDIA A100 80GB SXM data sheet",
        ),
        BoardProfile(
            model="A40",
            idle_w=30,
            tdp_w=300,
            min_limit_w=100,
            fp32_tflops=37.4,
            refresh_ms=100,
            sample_window_ms=100,
            usage_average_ms=1000,
            source="NVIDIA A40 data sheet",
        ),
        BoardProfile(
            model="L4",
            idle_w=16,
            tdp_w=72,
            min_limit_w=40,
            fp32_tflops=30.3,
            refresh_ms=100,
            sample_window_ms=100,
            usage_average_ms=1000,
            source="NVIDIA L4 data sheet",
        ),
        BoardProfile(
            model="T4",
            idle_w=10,
            tdp_w=70,
            min_limit_w=60,
            fp32_tflops=8.1,
            refresh_ms=100,
            sample_window_ms=100,
            usage_average_ms=0,
            source="NVIDIA T4 data sheet",
        ),
        BoardProfile(
            model="V100",
            idle_w=40,
            tdp_w=300,
            min_limit_w=150,
            fp32_tflops=15.7,
            refresh_ms=20,
            sample_window_ms=20,
            usage_average_ms=0,
            source="NVIDIA V100 SXM2 data sheet",
        ),
        BoardProfile(
            model="RTX-4090",
            idle_w=20,
            tdp_w=450,
            min_limit_w=150,
            fp32_tflops=82.6,
            refresh_ms=100,
            sample_window_ms=100,
            usage_average_ms=1000,
            source="NVIDIA Ada architecture white paper",
        ),
    )
}


def board_profile(model: str) -> BoardProfile:
    """The profile of an accelerator type.

    Raises:
        UnknownNameError: lists the types that can be simulated.
    """
    if model not in PROFILES:
        raise UnknownNameError("simulated accelerator", model, PROFILES)
    return PROFILES[model]
