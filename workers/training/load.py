"""Make the device ready and the base model: from a registry entry to weights that know the source split.

With ``loop.py`` and ``adapters.py`` this is the door of torch, transformers and peft; nothing else imports them.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from workers.contract import Training
from workers.errors import JobError
from workers.tasks.data import Split
from workers.training.loop import OnStep, fit
from workers.training.models import ModelInfo

SOURCE_BATCH_SIZE = 64
SOURCE_LEARNING_RATE = 3e-3
"""Both found by trial on ``digits``."""


def prepare(threads: int, seed: int) -> torch.device:
    """Seed torch, bound its CPU threads, and return the device to run on: the first visible GPU, else the CPU."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def build_base(info: ModelInfo, *, classes: int, seed: int) -> nn.Module:
    """A model of the architecture with random weights that follow from ``seed`` alone, on the CPU.

    Raises:
        JobError: transformers knows no such architecture, or the configuration does not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = AutoConfig.for_model(info.architecture, num_labels=classes, **info.config)
            model: nn.Module = AutoModelForImageClassification.from_config(config)
        except (ValueError, TypeError, RuntimeError) as error:
            raise JobError(
                f"no {info.architecture} model can be built from this configuration: {error} "
                "Correct architecture and config of the model's entry in workers/training/models.py."
            ) from error
    return model


def fit_source(
    model: nn.Module, info: ModelInfo, source: Split, *, seed: int, device: torch.device, on_step: OnStep
) -> None:
    """Train every weight on the source split, in place: what stands in for a pretrained checkpoint.

    Raises:
        JobError: as ``fit`` does.
    """
    training = Training(epochs=info.source_epochs, batch_size=SOURCE_BATCH_SIZE, learning_rate=SOURCE_LEARNING_RATE)
    fit(model, source, training, seed=seed, device=device, on_step=on_step)
