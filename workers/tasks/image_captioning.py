"""Task ``image-captioning``: say in a sentence what a picture shows.

Data of the hub is fetched when a job needs it; ``scenes-tiny`` is made here: two drawn shapes, one above or beside the
other.

A base model built from a configuration learns to name the two (``source``), and is fine-tuned to say how they lie.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from workers.tasks.data import PicturePrompts, PictureTexts, Split, TaskData
from workers.tasks.scenes import SIDE, Scene, scene, shapes_of, unlike
from workers.tasks.shapes import draw

DATA_SEED = 0
"""The same pictures in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1500, 1500, 100


def load(dataset: str, seed: int) -> TaskData:
    """Pictures without a question, and captions.

    Args:
        dataset: of ``HUB``, or ``scenes-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del dataset, seed
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    test = [scene(made) for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, made, count) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_split(source, [" and ".join(found.names) for found in source]),
        train=_split(train, [found.caption for found in train]),
        test=_split(test, [found.caption for found in test]),
        longest_input=64,
        longest_answer=16,
    )


def _split(scenes: Sequence[Scene], captions: Sequence[str]) -> PictureTexts:
    pictures = draw([shapes_of(one) for one in scenes], SIDE)
    return Split(inputs=PicturePrompts(pictures=pictures, prompts=("",) * len(scenes)), labels=tuple(captions))
