"""In which number format a fine-tune computes: float32, or bfloat16 by autocast where the device can.

As with transformers' ``bf16: true``, products of matrices are computed in bfloat16, and what is trained, its gradients
and the optimiser's state stay in float32. Weights that are frozen stay as they were loaded.
"""

from __future__ import annotations

import torch

from workers.errors import JobError

BF16_CAPABILITY = (8, 0)
"""CUDA capability from which bfloat16 is computed in hardware (Ampere): T4 and V100 are older."""


def computes_bf16(device: torch.device) -> bool:
    """Whether the device is a GPU with bfloat16 of its own, not one that emulates it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Inside, what gains from bfloat16 is computed in it; nothing changes unless ``bf16``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def check_bf16(device: torch.device) -> None:
    """Refuse a GPU that only emulates bfloat16; a CPU computes it, if slowly.

    Raises:
        JobError: it is one.
    """
    if device.type == "cuda" and not computes_bf16(device):
        name, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        raise JobError(
            f"training.bf16 needs a GPU that computes in bfloat16, and {name} (capability {major}.{minor}) does not. "
            "Set training.bf16: false, or name an Ampere or newer type in resources.accelerators."
        )
