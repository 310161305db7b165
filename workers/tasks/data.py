"""What a task hands to training: plain arrays and texts, and nothing of the library they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

I = TypeVar("I")  # noqa: E741 - what a model is given
L = TypeVar("L")


@dataclass(frozen=True, kw_only=True)
class Split(Generic[I, L]):
    """The examples of one split: what is given, and what is right.

    Attributes:
        inputs: ``(n, channels, height, width)`` float32 in [-1, 1] for images; a tuple of texts for text;
            ``PicturePrompts`` for both.
        labels: ``(n,)`` int64 class indices, or a tuple of the texts that are right.
    """

    inputs: I
    labels: L

    def __len__(self) -> int:
        return len(self.labels)  # type: ignore[arg-type] # arrays and tuples both have a length

    def first(self, count: int | None) -> Split[I, L]:
        """The first ``count`` examples; all for ``None``."""
        return Split(inputs=self.inputs[:count], labels=self.labels[:count])  # type: ignore[index]


Images = Split[NDArray[np.float32], NDArray[np.int64]]
LabelledTexts = Split[tuple[str, ...], NDArray[np.int64]]
TextPairs = Split[tuple[str, ...], tuple[str, ...]]
"""Prompts, and the texts that answer them."""


@dataclass(frozen=True, kw_only=True)
class PicturePrompt:
    """A picture and what is asked of it.

    Attributes:
        picture: a PIL image, or ``(3, height, width)`` float32 in [-1, 1].
        prompt: a question; empty: the picture is to be described.
    """

    picture: Any
    prompt: str


@dataclass(frozen=True, kw_only=True)
class PicturePrompts(Sequence[PicturePrompt]):
    """Pictures with their prompts; a picture is read when it is asked for.

    Attributes:
        pictures: ``(n, 3, height, width)``, or what gives one picture by its number.
        prompts: as many.
    """

    pictures: Any
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, chosen: int) -> PicturePrompt: ...

    @overload
    def __getitem__(self, chosen: slice) -> PicturePrompts: ...

    def __getitem__(self, chosen: int | slice) -> PicturePrompt | PicturePrompts:
        """One, or some of them, of which no picture is read."""
        if isinstance(chosen, slice):
            return PicturePrompts(pictures=self.pictures[chosen], prompts=self.prompts[chosen])
        return PicturePrompt(picture=self.pictures[chosen], prompt=self.prompts[chosen])


Prompts = Split[tuple[str, ...], tuple[str, ...]]
"""Of pictures to be made: nothing is right, so a label is the prompt itself."""
PictureTexts = Split[PicturePrompts, tuple[Any, ...]]
"""Pictures with prompts, and the text that answers each, or several (a tuple) of which the first is learned."""
AnySplit = Split[Any, Any]


def nothing_besides(folder: Path, count: int) -> Mapping[str, object]:
    """The context of scores that need none."""
    del folder, count
    return {}


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The data of one job.

    Attributes:
        source: what a base model built from a configuration is first trained on, standing in for pretraining;
            ``None`` for a data set of the hub, whose models come pretrained.
        train: what is fine-tuned on.
        test: what baseline and final scores are taken on; disjoint from ``train`` and ``source``.
        classes: number of labels, where the answer is one; else 0.
        longest_input: tokens of a prompt that are kept at most.
        longest_answer: tokens of an answer at most, in training and generation.
        context: makes, in a folder, what the task's scores need besides for so many first examples of ``test``
            (``quality.registry.evaluate`` says what).
    """

    source: AnySplit | None
    train: AnySplit
    test: AnySplit
    classes: int = 0
    longest_input: int = 1024
    longest_answer: int = 128
    context: Callable[[Path, int], Mapping[str, object]] = field(default=nothing_besides)
