"""What a driver knows of a board beside its physics: product name, architecture, memory, clock (data sheets)."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass

from workers.telemetry.profiles import BoardProfile, board_profile


@dataclass(frozen=True, kw_only=True)
class Product:
    """One product, as NVML tells it.

    Attributes:
        architecture: NVML's number: 4 Pascal, 5 Volta, 6 Turing, 7 Ampere, 8 Ada, 9 Hopper.
        capability: CUDA's compute capability.
    """

    name: str
    architecture: int
    capability: tuple[int, int]
    memory_gib: int
    clock_mhz: int


PRODUCTS = {
    "H100": Product(name="NVIDIA H100 80GB HBM3", architecture=9, capability=(9, 0), memory_gib=80, clock_mhz=1980),
    "H200": Product(name="NVIDIA H200", architecture=9, capability=(9, 0), memory_gib=141, clock_mhz=1980),
    "GH200": Product(name="NVIDIA GH200 480GB", architecture=9, capability=(9, 0), memory_gib=96, clock_mhz=1980),
    "A100-80GB": Product(
        name="NVIDIA A100-SXM4-80GB", architecture=7, capability=(8, 0), memory_gib=80, clock_mhz=1410
    ),
    "A40": Product(name="NVIDIA A40", architecture=7, capability=(8, 6), memory_gib=48, clock_mhz=1740),
    "L4": Product(name="NVIDIA L4", architecture=8, capability=(8, 9), memory_gib=24, clock_mhz=2040),
    "T4": Product(name="Tesla T4", architecture=6, capability=(7, 5), memory_gib=16, clock_mhz=1590),
    "V100": Product(name="Tesla V100-SXM2-32GB", architecture=5, capability=(7, 0), memory_gib=32, clock_mhz=1530),
    "P100": Product(name="Tesla P100-SXM2-16GB", architecture=4, capability=(6, 0), memory_gib=16, clock_mhz=1480),
    "RTX-4090": Product(
        name="NVIDIA GeForce RTX 4090", architecture=8, capability=(8, 9), memory_gib=24, clock_mhz=2520
    ),
}

PASCAL = BoardProfile(
    model="P100",
    idle_w=30,
    tdp_w=300,
    min_limit_w=150,
    fp32_tflops=10.6,
    refresh_ms=20,
    sample_window_ms=20,
    usage_average_ms=0,
    source="NVIDIA P100 SXM2 data sheet; before Volta there is no energy counter",
    has_counter=False,
    has_instant=False,
)


@dataclass(frozen=True, kw_only=True)
class BoardSpec:
    """One board of a driver.

    Attributes:
        uuid: empty: made from the index.
        counted_mj: what its counter stands at when the driver is loaded.
        offset_ms: when its sensors refresh first.
        slices: MIG devices it is cut into, by UUID; any means MIG is enabled.
        changes: fields of the profile that differ on this board.
    """

    model: str = "H100"
    uuid: str = ""
    counted_mj: int = 123_456_789
    offset_ms: int = 37
    slices: tuple[str, ...] = ()
    changes: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def product(self) -> Product:
        return PRODUCTS[self.model]

    @property
    def profile(self) -> BoardProfile:
        known = {"P100": PASCAL}.get(self.model) or board_profile("H100" if self.model == "GH200" else self.model)
        return dataclasses.replace(known, **self.changes)

    def uuid_at(self, index: int) -> str:
        """Its UUID as the ``index``-th board."""
        return self.uuid or f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.model}/{index}')}"
