"""What makers call their boards, to the accelerator type by which placement labels call them."""

from __future__ import annotations

import re

_NAMES: tuple[tuple[str, str], ...] = (
    (r"\bH200\b", "H200"),
    (r"\bH100\b", "H100"),
    (r"\bA100\b.*80G", "A100-80GB"),
    (r"\bA100\b", "A100-40GB"),
    (r"\bV100", "V100"),
    (r"\bP100\b", "P100"),
    (r"\bK80\b", "K80"),
    (r"\bT4\b", "T4"),
    (r"\bL40S\b", "L40S"),
    (r"\bL4\b", "L4"),
    (r"\bA40\b", "A40"),
    (r"\bA10G\b", "A10G"),
)


def accelerator_type(name: str) -> str:
    """The accelerator type of a board by NVML's product name: ``NVIDIA A100-SXM4-80GB`` is ``A100-80GB``."""
    for pattern, model in _NAMES:
        if re.search(pattern, name):
            return model
    bare = re.sub(r"^(NVIDIA|Tesla)\s+|GeForce\s+", "", re.sub(r"^NVIDIA\s+", "", name))
    return re.sub(r"\s+", "-", bare.strip())
