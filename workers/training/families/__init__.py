"""The families of models. Adding one is one module here and one line in ``FAMILIES``.

A family knows how to build its models, to make batches of a split, and to answer. Names only; ``base_of`` imports.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from workers.errors import JobError

if TYPE_CHECKING:
    from workers.tasks.data import TaskData
    from workers.training.families.base import Base
    from workers.training.models import ModelInfo

FAMILIES = {
    "image-classification": "workers.training.families.images",
    "object-detection": "workers.training.families.detection",
    "text-classification": "workers.training.families.text_classes",
    "token-classification": "workers.training.families.word_tags",
    "question-answering": "workers.training.families.spans",
    "fill-mask": "workers.training.families.masked_words",
    "text-generation": "workers.training.families.causal",
    "seq2seq": "workers.training.families.seq2seq",
    "image-text-to-text": "workers.training.families.vision_language",
    "visual-question-answering": "workers.training.families.blip",
    "text-to-image": "workers.training.families.diffusion",
}
WRITERS = ("seq2seq", "text-generation")
"""Families whose answer to anything is a text."""
HEADS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "visual-question-answering": "ForQuestionAnswering",
}
"""How the name of an architecture ends that has the family's own head."""


class FamilyModule(Protocol):
    """What a family's module offers."""

    def base(self, info: ModelInfo, data: TaskData, *, seed: int, loading: Mapping[str, object]) -> Base:
        """The model before it is adapted; ``loading`` is for transformers' ``from_pretrained``."""
        ...


def base_of(
    families: Sequence[str],
    info: ModelInfo,
    data: TaskData,
    *,
    seed: int,
    loading: Mapping[str, object] = MappingProxyType({}),
) -> Base:
    """The base model of ``info`` for the task's data, and how it takes examples.

    Args:
        families: those that can do the task, in order of preference.
        info: the model.
        data: the task's.
        seed: of weights that are drawn.
        loading: how a model of the hub is loaded (``quantizing.loading_of``).

    Raises:
        JobError: it is of no family that can do the task, or cannot be built or loaded.
    """
    chosen = family_of(families, info)
    module = cast("FamilyModule", importlib.import_module(FAMILIES[chosen]))
    built = dataclasses.replace(info, family=chosen)
    if data.as_text is None or chosen not in WRITERS:
        return module.base(built, data, seed=seed, loading=loading)
    from workers.training.families.asking import asked, put_as_text  # noqa: PLC0415 - brings torch

    return asked(module.base(built, put_as_text(data, data.as_text), seed=seed, loading=loading), data.as_text)


def family_of(families: Sequence[str], info: ModelInfo) -> str:
    """The family, among those that can do the task, that the model is taken as.

    A model of the hub is taken as what its configuration names: the family whose head it has; else, where the task is
    for them too, an encoder-decoder as one; else the family of the task's own head, which is then new.

    Raises:
        JobError: it is of none, or its configuration cannot be had.
    """
    if info.hub is None:
        able = [family for family in info.families if family in families]
        fact = f"{'an' if str(info.family)[0] in 'aeiou' else 'a'} {info.family} model"
    elif len(families) == 1:
        return families[0]
    else:
        from workers.training.hub import config_of  # noqa: PLC0415 - brings transformers

        config = config_of(info.hub, info.trust)
        names = tuple(config.architectures or ())
        own = [family for family in families if family not in WRITERS]
        able = [family for family in (*_trained_as(names, config.is_encoder_decoder), *own) if family in families]
        fact = f"model {info.hub}, a {' and '.join(names) or config.model_type},"
    if not able:
        raise JobError(f"{fact} cannot do this task; choose a model of the family {' or '.join(families)}.")
    return able[0]


def _trained_as(architectures: Sequence[str], is_encoder_decoder: bool) -> list[str]:
    """The families that the model is of as it comes, the closest first."""
    found = [family for family, end in HEADS.items() if any(name.endswith(end) for name in architectures)]
    if is_encoder_decoder:
        found.append("seq2seq")
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        found.append("text-generation")
    return found
