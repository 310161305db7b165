"""Task ``visual-question-answering``: answer a question about a picture.

Data: PathVQA (He et al. 2020, arXiv 2003.10286), as CEGI's authors use it, and VQAv2 (Goyal et al. 2017, arXiv
1612.00837), fetched from the hub when a job needs them; and ``scenes-tiny``, made here: questions about a drawn
shape.

A base model built from a configuration learns to tell the shape's colour, kind and place (``source``), and
is fine-tuned on questions of which half want colour and kind in one answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from workers.tasks.data import PicturePrompts, PictureTexts, Split, TaskData, unlike
from workers.tasks.hub import HubData
from workers.tasks.pictures import Pictures, picture_data
from workers.tasks.scenes import SIDE, scene, shapes_of
from workers.tasks.shapes import Shape, draw

HUB = {
    "pathvqa": HubData(
        path="flaviagiammarino/path-vqa",
        splits={"train": "train", "test": "test"},
        columns=("image", "question", "answer"),
        licence="MIT",
    ),
    # The answers of VQAv2's own test split are not public; each question has ten answers.
    "vqav2": HubData(
        path="lmms-lab/VQAv2",
        splits={"train": "validation[:90%]", "test": "validation[90%:]"},
        columns=("image", "question", "answers"),
        licence="CC BY 4.0",
    ),
}
DATA_SEED = 1
"""The same pictures in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1500, 1500, 150


def load(dataset: str, seed: int) -> TaskData:
    """Pictures with questions, and answers; each a tuple where people gave several.

    Args:
        dataset: of ``HUB``, or ``scenes-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return picture_data(HUB[dataset], _answered, longest_answer=32)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw_one = partial(_shape, made)
    test = [draw_one() for _ in range(TEST_SAMPLES)]
    early, late = (unlike(test, draw_one, count) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_asked(early, made, named=0.0),
        train=_asked(late, made, named=0.5),
        test=_asked(test, made, named=0.5),
        longest_answer=6,
    )


def _answered(pictures: Pictures, questions: Sequence[str], answers: Sequence[Any]) -> PictureTexts:
    inputs = PicturePrompts(pictures=pictures, prompts=tuple(questions))
    return Split(inputs=inputs, labels=tuple(map(_said, answers)))


def _said(answer: Any) -> str | tuple[str, ...]:  # noqa: ANN401 - as a data set has it
    """One answer, or those of several people, which VQA's own files wrap with how sure each was."""
    if isinstance(answer, str):
        return answer
    return tuple(one["answer"] if isinstance(one, Mapping) else one for one in answer)


def _shape(made: random.Random) -> Shape:
    """One of a scene's."""
    return made.choice(shapes_of(scene(made)))


def _asked(shown: Sequence[Shape], made: random.Random, *, named: float) -> PictureTexts:
    """The shapes, each with a question; for a share of ``named`` it is ``WHAT``."""
    pairs = [WHAT if made.random() < named else made.choice(QUESTIONS) for _ in shown]
    return Split(
        inputs=PicturePrompts(
            pictures=draw([[shape] for shape in shown], SIDE), prompts=tuple(question for question, _ in pairs)
        ),
        labels=tuple(answer(shape) for shape, (_, answer) in zip(shown, pairs, strict=True)),
    )


def _place(shape: Shape) -> str:
    return f"{'top' if shape.y < 0.5 else 'bottom'} {'left' if shape.x < 0.5 else 'right'}"


Question = tuple[str, Callable[[Shape], str]]
QUESTIONS: tuple[Question, ...] = (
    ("What colour is the shape?", lambda shape: shape.colour),
    ("What shape is it?", lambda shape: shape.kind),
    ("Where is the shape?", _place),
)
WHAT: Question = ("What is this?", lambda shape: f"{shape.colour} {shape.kind}")
