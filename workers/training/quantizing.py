"""Base models in 8 or 4 bits, by bitsandbytes through transformers; adapters of full precision are trained on top."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from workers.contract import Quantization
from workers.errors import JobError
from workers.training.hub import weights_of
from workers.training.precision import computes_bf16

QUANTIZED = ("Linear8bitLt", "Linear4bit")
"""Classes of bitsandbytes' layers."""


def loading_of(quantization: Quantization, device: torch.device, *, bf16: bool = False) -> Mapping[str, object]:
    """What ``from_pretrained`` must be told; 4 bits are NF4 with quantised constants, as QLoRA has it (2305.14314).

    They are unpacked to and computed in bfloat16 where the job asks for it (``training.bf16``) or the GPU has it.

    Raises:
        JobError: bitsandbytes is not installed.
    """
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise JobError(
            f"quantization {quantization} needs the package bitsandbytes; "
            "pip install 'wattledger[quantization]' on this node, or set quantization: none."
        )
    narrow = torch.float32 if device.type == "cpu" else torch.float16
    compute = torch.bfloat16 if bf16 or computes_bf16(device) else narrow
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def check(model: nn.Module, quantization: Quantization) -> None:
    """Refuse a model none of whose layers were quantised: it would run, and report, as something it is not.

    What passes can answer and be trained on in any order.

    Raises:
        JobError: it is one.
    """
    layers = [module for module in model.modules() if type(module).__name__ in QUANTIZED]
    for layer in layers:
        # On a CPU that has AVX-512, 4-bit layers change their weights to a layout for answering alone at the first
        # answer, and a model that was scored could no longer be trained (bitsandbytes 0.50).
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if quantization != "none" and not layers:
        raise JobError(
            f"quantization {quantization} found no linear layer to quantise in a {_architecture(model)} model; "
            "set quantization: none, or choose a model made of linear layers."
        )


def keep(model: PreTrainedModel, folder: Path) -> None:
    """Write a base model that was made here, whole or not at all, for ``quantized`` to read.

    Raises:
        OSError: the folder cannot be written.
    """
    aside = folder.with_name(f".{folder.name}")
    for old in (aside, folder):
        shutil.rmtree(old, ignore_errors=True)
    model.save_pretrained(aside)
    aside.rename(folder)


def quantized(
    family: str, folder: Path, quantization: Quantization, device: torch.device, *, bf16: bool = False
) -> PreTrainedModel:
    """The model that ``keep`` wrote, in fewer bits, on ``device``.

    Raises:
        JobError: it is not there, or cannot be quantised.
    """
    model = weights_of(family, str(folder), **loading_of(quantization, device, bf16=bf16))
    check(model, quantization)
    return model


def _architecture(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
