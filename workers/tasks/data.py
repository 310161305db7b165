"""What a task hands to training: plain arrays and texts, and nothing of the library they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The objects of one image.

    Attributes:
        corners: ``(n, 4)``: left, top, right, bottom, in pixels.
        labels: ``(n,)`` class indices.
        confidences: ``(n,)`` in [0, 1] for predicted objects; ``None`` for true ones.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    confidences: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


I = TypeVar("I")  # noqa: E741 - what a model is given
L = TypeVar("L")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Split(Generic[I, L]):
    """The examples of one split: what is given, and what is right.

    Attributes:
        inputs: ``(n, channels, height, width)`` float32 in [-1, 1] for images that were made here, ``Pictures`` for
            those of the hub; a tuple of texts for text; ``PicturePrompts`` for both.
        labels: ``(n,)`` int64 class indices, or a tuple of what the task's scores take: texts, tags, ``Boxes``.
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
TaggedWords = Split[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]
"""Sentences as words, and a BIO tag for each word."""


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


MASK = "[MASK]"
"""Stands for a hidden word in a text, whatever a model's own mask is."""


class Question(NamedTuple):
    """A question, and the text that answers it."""

    question: str
    context: str


@dataclass(frozen=True, kw_only=True)
class Questions(Split[tuple[Question, ...], tuple[tuple[str, ...], ...]]):
    """Questions, and for each the answers that are right; ``("",)`` where its text has none.

    Attributes:
        starts: where the first answer begins in the context, in characters; ``None`` where there is none. What a model
            learns from and no score takes.
    """

    starts: tuple[int | None, ...]

    def first(self, count: int | None) -> Questions:
        """The first ``count`` examples; all for ``None``."""
        return Questions(inputs=self.inputs[:count], labels=self.labels[:count], starts=self.starts[:count])


def nothing_besides(folder: Path, count: int) -> Mapping[str, object]:
    """The context of scores that need none."""
    del folder, count
    return {}


@dataclass(frozen=True, kw_only=True)
class AsText:
    """How a model that writes is given a task for which others have a head of their own.

    Attributes:
        pairs: a split as prompts, and the texts that answer them.
        read: a text that was written, in the form of the task's labels; one that says none of them becomes a value
            that is wrong.
        longest_input: tokens of a prompt that are kept at most.
    """

    pairs: Callable[[Any], TextPairs]
    read: Callable[[str], object]
    longest_input: int


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The data of one job.

    Attributes:
        source: what a base model built from a configuration is first trained on, standing in for pretraining;
            ``None`` for a data set of the hub, whose models come pretrained.
        train: what is fine-tuned on.
        test: what baseline and final scores are taken on; disjoint from ``train`` and ``source``.
        classes: number of labels, where the answer is one; else 0.
        class_names: of the labels, in their order, where they have names.
        longest_input: tokens of a prompt that are kept at most.
        longest_answer: tokens of an answer at most, in training and generation.
        context: makes, in a folder, what the task's scores need besides for so many first examples of ``test``
            (``quality.registry.evaluate`` says what).
        as_text: where models that write can do the task besides those with a head for it.
    """

    source: AnySplit | None
    train: AnySplit
    test: AnySplit
    classes: int = 0
    class_names: tuple[str, ...] = ()
    longest_input: int = 1024
    longest_answer: int = 128
    context: Callable[[Path, int], Mapping[str, object]] = field(default=nothing_besides)
    as_text: AsText | None = None


def unlike(
    held_out: Iterable[R], draw: Callable[[], R], count: int, *, key: Callable[[R], object] = lambda row: row
) -> list[R]:
    """``count`` rows as ``draw`` makes them, none of which is, by its ``key``, among those held out."""
    seen = frozenset(map(key, held_out))
    found: list[R] = []
    while len(found) < count:
        row = draw()
        if key(row) not in seen:
            found.append(row)
    return found
