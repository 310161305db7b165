"""The families of models. Adding one is one module here and one line in ``FAMILIES``.

A family knows how to build its models, to make batches of a split, and to answer. Names only; ``base_of`` imports.
"""

from __future__ import annotations

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
    "text-classification": "workers.training.families.text_classes",
    "text-generation": "workers.training.families.causal",
    "seq2seq": "workers.training.families.seq2seq",
}


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
    if chosen not in families:
        raise JobError(f"a {chosen} model cannot do this task; choose a model of the family {' or '.join(families)}.")
    module = cast("FamilyModule", importlib.import_module(FAMILIES[chosen]))
    return module.base(info, data, seed=seed, loading=loading)


def family_of(families: Sequence[str], info: ModelInfo) -> str:
    """The family of the model among those that can do the task, or its own, which cannot.

    Raises:
        JobError: it is of the hub, and its configuration cannot be had.
    """
    if info.family is not None or len(families) == 1:
        return info.family or families[0]
    from workers.training.hub import is_seq2seq  # noqa: PLC0415 - brings transformers

    return "seq2seq" if is_seq2seq(str(info.hub), info.trust) else "text-generation"
