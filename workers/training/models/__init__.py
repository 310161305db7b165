"""The models a manifest may name: data only, so that naming one loads nothing. Adding one is an entry in a table here.

``tiny/*`` models are built from a configuration of the named architecture with random weights, then trained on the
task's source split in the ``load`` phase, which stands in for a pretrained checkpoint where there is no network.
"""

from __future__ import annotations

import re

from workers.contract import Trust
from workers.errors import UnknownNameError
from workers.training.models import diffusion, text, vision, vision_language
from workers.training.models.info import NO_TRUST, ModelInfo

__all__ = ["HUB_PATTERN", "MODELS", "ModelInfo", "is_pretrained", "model_info"]

HUB_PATTERN = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|\.{0,2}/.+"
"""A model of the hub has an owner; a folder begins with ``/``, ``./`` or ``../``."""

MODELS: dict[str, ModelInfo] = {**vision.MODELS, **text.MODELS, **vision_language.MODELS, **diffusion.MODELS}


def model_info(name: str, trust: Trust = NO_TRUST) -> ModelInfo:
    """The entry of ``name``, or what is known beforehand of a model of the hub or in a folder.

    ``trust`` is for the latter two: nothing of the registry's runs code.

    Raises:
        UnknownNameError: lists the known models.
    """
    if name in MODELS:
        return MODELS[name]
    if not is_pretrained(name):
        raise UnknownNameError("model", name, MODELS)
    return ModelInfo(architecture=None, config={}, lora_targets=(), source_epochs=0, family=None, hub=name, trust=trust)


def is_pretrained(name: str) -> bool:
    """Whether it names a model of the hub (``owner/name``), or a folder (``/…``, ``./…``)."""
    return not name.startswith("tiny/") and re.fullmatch(HUB_PATTERN, name) is not None
