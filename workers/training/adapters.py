"""Which weights a fine-tune changes, how many those are, and how they are written."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from workers.contract import Adapter
from workers.errors import JobError
from workers.training.models import ModelInfo

ALL_LINEAR = "all-linear"
"""What LoRA is attached to in a model of the hub unless the manifest says: peft's word for all but the output layer.
In a model whose only linear layer is its head, a convolutional one, it is that and the convolutions."""
FOLDER = "adapter"
"""Where an attempt leaves the weights it trained, in its folder."""


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Logical parameters of a model: the elements of its weights, however they are stored.

    Attributes:
        trainable: those a fine-tune changes.
        total: all, the adapter's included.
    """

    trainable: int
    total: int


def adapt(model: nn.Module, adapter: Adapter, info: ModelInfo) -> nn.Module:
    """The model with exactly those weights trainable that ``adapter`` says; the one given is changed.

    ``none`` freezes everything, ``full`` nothing. ``lora`` adds ``rank * (d_in + d_out)`` weights to each linear
    layer that is targeted and freezes the rest, the classifier's head included unless it is targeted. A fresh
    LoRA changes no answer. Its weights draw from torch's global generator, which ``prepare`` seeds. What is trained is
    float32, and what is frozen stays as it was loaded.

    Raises:
        JobError: a target names no module, or one that LoRA cannot be attached to at this rank; or all weights of a
            quantised model are to be trained.
    """
    is_quantized = bool(getattr(model, "is_quantized", False))
    if is_quantized and adapter.method == "full":
        raise JobError(
            "quantised weights cannot be trained: adapter.method full does not go with quantization 8bit or 4bit. "
            "Set adapter.method: lora, or quantization: none."
        )
    if adapter.method == "full":
        # Many models of the hub come in bfloat16, which would round a small step away.
        return model.float().requires_grad_(True)
    if adapter.method == "none":
        return model.requires_grad_(False)
    targets = info.lora_targets if adapter.targets is None else adapter.targets
    everywhere = info.hub is not None and not targets
    if not everywhere:
        _check_targets(model, targets)
    if is_quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    alpha = 2 * adapter.rank if adapter.alpha is None else adapter.alpha
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=alpha,  # type: ignore[arg-type] # a numerator: peft divides by the rank, so any number serves
        lora_dropout=adapter.dropout,
        target_modules=_everywhere(model) if everywhere else list(targets),
    )
    try:
        return _wrapped(model, config)
    except ValueError as error:
        raise JobError(
            f"LoRA of rank {adapter.rank} does not fit {', '.join(targets) or ALL_LINEAR}: {error} "
            f"Change adapter.rank, or choose adapter.targets among: {_choices(model)}."
        ) from error


def count_parameters(model: nn.Module) -> ParameterCount:
    """Logical parameters, of which a figure per million parameters is made.

    Not ``numel()``: bitsandbytes packs two 4-bit weights into a byte, so a quantised model reports about half of
    its elements and what is divided by them comes out twice too large.
    """
    trainable = total = 0
    for parameter in model.parameters():
        count = _logical_count(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return ParameterCount(trainable=trainable, total=total)


def save(model: nn.Module, folder: Path) -> None:
    """Write the weights as safetensors, never as a pickle, with their configuration as JSON.

    A LoRA's folder holds the adapter alone (``adapter_model.safetensors``), any other the whole model
    (``model.safetensors``); peft and transformers read them back.

    Raises:
        OSError: the folder cannot be written.
        TypeError: a model that neither library made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        # Not "auto": to decide about embedding layers, peft would look the base model up on the hub.
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    elif isinstance(model, PreTrainedModel):
        model.save_pretrained(folder)
    else:
        raise TypeError(f"cannot save a {type(model).__name__}: neither transformers nor peft made it")


def check_saved(folder: Path) -> None:
    """See that ``save`` wrote weights there.

    Raises:
        JobError: there are none.
    """
    if not any((folder / name).is_file() for name in ("adapter_model.safetensors", "model.safetensors")):
        raise JobError(
            f"there are no fine-tuned weights in {folder}. Run the job that trains them again, under another "
            "submission id, or put the folder back; all nodes must see the same ledger."
        )


def load_saved(model: PreTrainedModel, folder: Path, *, device: torch.device) -> nn.Module:
    """``model``, a base as the one that was adapted, with the weights that ``save`` wrote; that one may be changed.

    Only safetensors are read: a pickle could hold code.

    Raises:
        JobError: there are none, or they are of another model.
    """
    check_saved(folder)
    is_lora = (folder / "adapter_model.safetensors").is_file()
    try:
        return _with_lora(model, folder, device) if is_lora else _whole(model, folder).to(device)
    except (RuntimeError, ValueError, TypeError, LookupError, UserWarning, SafetensorError) as error:
        fact = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise JobError(
            f"the fine-tuned weights in {folder} do not fit the model: {fact} "
            "Name a fine-tune of the same model under adapter.trained_by."
        ) from error


def _with_lora(model: PreTrainedModel, folder: Path, device: torch.device) -> nn.Module:
    with _quiet():
        # Only warned about by peft: part of the adapter would stay as it was drawn.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return _described(PeftModel.from_pretrained(model, str(folder), torch_device=str(device)))


def _whole(model: PreTrainedModel, folder: Path) -> nn.Module:
    """Transformers reads what it wrote under its own names; what it does not find it would draw anew and only warn."""
    found = type(model).from_pretrained(
        folder, config=model.config, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    again, loading = cast("tuple[nn.Module, dict[str, object]]", found)
    amiss = {kind: str(keys) for kind, keys in loading.items() if keys and kind.endswith("_keys")}
    if amiss:
        raise ValueError(f"{amiss}.")
    return again


def _wrapped(model: nn.Module, config: LoraConfig) -> nn.Module:
    with _quiet():
        return _described(get_peft_model(cast("PreTrainedModel", model), config))


def _described(model: nn.Module) -> nn.Module:
    """With what a convolution says of itself on peft's layer around it too: MobileNets pad by it."""
    for module in model.modules():
        inner = getattr(module, "base_layer", None)
        if isinstance(inner, nn.Conv2d):
            vars(module).update(kernel_size=inner.kernel_size, stride=inner.stride, dilation=inner.dilation)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without two warnings of peft's that tell our users nothing."""
    with warnings.catch_warnings():
        # peft asks transformers for a property by its old name, which is theirs to mend, and says that a LoRA on a
        # grouped convolution cannot be merged, which nobody here does.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="LoRA adapter added to ConvNd layer with groups")
        yield


def _everywhere(model: nn.Module) -> str | list[str]:
    """Names of layers, or peft's word for them. Not grouped convolutions: their rank would have to fit the groups."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if len(linear) > 1:
        return ALL_LINEAR
    modules = model.named_modules()
    return linear + [name for name, module in modules if isinstance(module, nn.Conv2d) and module.groups == 1]


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Each target must be the last parts of a module's dotted name; peft is content with one match among many."""
    names = [f".{name}" for name, _ in model.named_modules()]
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in names)]
    if unknown or not targets:
        raise JobError(
            f"LoRA has no module to attach to: {', '.join(unknown)}. Choose adapter.targets among: {_choices(model)}."
        )


def _choices(model: nn.Module) -> str:
    """The linear and convolutional layers, listed by the last part of their names (with its list's if a number)."""
    choices = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            *rest, last = name.split(".")
            choices.add(f"{rest[-1]}.{last}" if last.isdigit() else last)
    return ", ".join(sorted(choices))


def _logical_count(parameter: nn.Parameter) -> int:
    """Elements of one parameter, unpacked if bitsandbytes packed it (it then has a ``quant_state``), of all ranks."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        # At DeepSpeed's stage 3 a rank holds a part, which DeepSpeed keeps elsewhere.
        return int(getattr(parameter, "ds_numel", parameter.numel()))
    shape = getattr(state, "shape", None)
    return math.prod(shape) if shape is not None else 2 * parameter.element_size() * parameter.numel()
