"""Make the device ready and the base model: from a registry entry to weights that know the source split.

With ``loop.py`` and ``adapters.py`` this is the door of torch, transformers and peft; nothing else imports them.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForObjectDetection,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForVisualQuestionAnswering,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from workers.contract import Training
from workers.errors import JobError
from workers.training.examples import Examples
from workers.training.loop import fit
from workers.training.memory import named_memory
from workers.training.models import ModelInfo
from workers.training.steps import OnStep, steps_of

AUTO: Mapping[str, Any] = {
    "image-classification": AutoModelForImageClassification,
    "object-detection": AutoModelForObjectDetection,
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
    "fill-mask": AutoModelForMaskedLM,
    "text-generation": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "image-text-to-text": AutoModelForImageTextToText,
    "visual-question-answering": AutoModelForVisualQuestionAnswering,
}
"""Family to transformers' auto class."""
MISFITS = (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, StrictDataclassError)
"""What transformers raises for a configuration that does not fit, each seen in version 5.23."""


def prepare(threads: int, seed: int, *, holds_gpu: bool = False) -> torch.device:
    """Seed torch, bound its CPU threads, and return the device to run on: the first visible GPU, else the CPU.

    Raises:
        JobError: the job holds a real GPU that torch cannot use; on the CPU, the joules of an idle GPU would be booked
            to it as if it had done the work.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    disable_progress_bar()  # type: ignore[no-untyped-call] # an attempt's log is read line by line
    if holds_gpu and not torch.cuda.is_available():
        raise JobError(
            f"the job holds a GPU, but torch {torch.__version__} sees no CUDA device. "
            "Install a CUDA build of torch that fits the driver; `wattledger doctor` shows both."
        )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    # Transformers loads DeepSpeed wherever it is installed, and that warns of what it finds unless it is told.
    os.environ["DS_ACCELERATOR"] = device.type
    return device


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Weights made on the CPU inside follow from ``seed`` alone; torch's own generator goes on as if they were not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_base(
    info: ModelInfo, *, seed: int, classes: int = 0, more: Mapping[str, object] | None = None
) -> PreTrainedModel:
    """A model of the architecture with random weights that follow from ``seed`` alone, on the CPU.

    Args:
        info: names the architecture and its family.
        seed: of the weights.
        classes: outputs of a classifier; 0 where the model is none.
        more: of the configuration, what follows from the task's data (sizes and ids of its tokenizer, the size of its
            pictures); it comes before what the registry says.

    Raises:
        JobError: transformers knows no such architecture or key, or the values do not fit together.
    """
    labels = {"num_labels": classes} if classes else {}
    with drawn_from(seed):
        try:
            _check_keys(info)
            config = AutoConfig.for_model(str(info.architecture), **labels, **{**info.config, **(more or {})})
            with named_memory(None):
                model = AUTO[info.family or ""].from_config(config)
            return cast("PreTrainedModel", model)
        except MISFITS as error:
            fact = textwrap.shorten(str(error), 300, placeholder=" ...")
            raise JobError(
                f"no {info.architecture} model can be built: {type(error).__name__}: {fact} "
                "Correct the architecture or config of the model's entry in the registry of models."
            ) from error


def _check_keys(info: ModelInfo) -> None:
    """Transformers takes any key and ignores what it does not know, so a typo would build another model."""
    default = AutoConfig.for_model(str(info.architecture))
    unknown = [key for key in info.config if not hasattr(default, key)]
    for section, keys in info.config.items():
        part = getattr(default, section, None)
        if isinstance(keys, Mapping) and "model_type" in keys:
            part = AutoConfig.for_model(str(keys["model_type"]))
        if isinstance(part, PreTrainedConfig) and isinstance(keys, Mapping):
            unknown += [f"{section}.{key}" for key in keys if not hasattr(part, key)]
    if unknown:
        raise ValueError(f"its configuration has no {', '.join(unknown)}.")


def fit_source(
    model: nn.Module, info: ModelInfo, source: Examples, *, seed: int, device: torch.device, on_step: OnStep
) -> None:
    """Train every weight on the source split, in place: what stands in for a pretrained checkpoint.

    Raises:
        JobError: as ``fit`` does.
    """
    fit(model, source, _source_training(info), seed=seed, device=device, on_step=on_step)


def source_steps(info: ModelInfo, samples: int) -> int:
    """Optimiser steps of ``fit_source`` on so many samples; none for a model that comes pretrained, or without any."""
    return 0 if info.hub is not None or not samples else steps_of(_source_training(info), samples)


def _source_training(info: ModelInfo) -> Training:
    return Training(
        epochs=info.source_epochs, batch_size=info.source_batch_size, learning_rate=info.source_learning_rate
    )
