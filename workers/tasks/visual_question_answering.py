"""Task ``visual-question-answering``: answer a question about a picture.

Data: PathVQA (He et al. 2020, arXiv 2003.10286), as CEGI's authors use it, and VQAv2 (Goyal et al. 2017, arXiv
1612.00837), fetched from the hub when a job needs them; and ``scenes-tiny``, made here: questions about two drawn
shapes.

A base model built from a configuration learns to tell the colour of a shape (``source``), and is fine-tuned on
questions of which two in three are about how the shapes lie.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from workers.tasks.data import PicturePrompts, PictureTexts, Split, TaskData
from workers.tasks.hub import HubData
from workers.tasks.pictures import pictures_of
from workers.tasks.scenes import SIDE, Scene, picture_of, scene, unlike
from workers.tasks.shapes import draw

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
        train, held_out = (_answered(HUB[dataset], name) for name in ("train", "test"))
        return TaskData(source=None, train=train, test=held_out, longest_answer=32)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    test = [scene(made) for _ in range(TEST_SAMPLES)]
    source, train_scenes = (unlike(test, made, count) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_asked(source, made, kinds=1),
        train=_asked(train_scenes, made, kinds=3),
        test=_asked(test, made, kinds=3),
        longest_answer=6,
    )


def _answered(data: HubData, split: str) -> PictureTexts:
    image, question, answer = data.columns
    pictures, others = pictures_of(data, split, image)
    labels = tuple(
        said if isinstance(said, str) else tuple(one["answer"] for one in said) for said in others[answer]
    )
    return Split(inputs=PicturePrompts(pictures=pictures, prompts=tuple(others[question])), labels=labels)


def _asked(scenes: Sequence[Scene], made: random.Random, *, kinds: int) -> PictureTexts:
    pairs = [_question(one, made.randrange(kinds), made.randrange(2)) for one in scenes]
    pictures = draw([picture_of(one) for one in scenes], SIDE)
    return Split(
        inputs=PicturePrompts(pictures=pictures, prompts=tuple(question for question, _ in pairs)),
        labels=tuple(answer for _, answer in pairs),
    )


def _question(found: Scene, kind: int, which: int) -> tuple[str, str]:
    """A question of that kind about the first or the second shape, and its answer."""
    shape, colour = found.kinds[which], found.colours[which]
    if kind == 0:
        return f"What colour is the {shape}?", colour
    if kind == 1:
        place = {"above": ("top", "bottom"), "left of": ("left", "right")}[found.relation][which]
        return f"Where is the {shape}?", place
    return f"What shape is {colour}?", shape
