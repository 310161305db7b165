"""Task ``image-captioning``: say in a sentence what a picture shows.

Data: artbench-pd-256x256 (public-domain part of ArtBench, Liao et al. 2022, arXiv 2206.11404, with captions a model
wrote), as CEGI's authors use it, fetched from the hub when a job needs it; and ``scenes-tiny``, made here: two drawn
shapes, one above or beside the other.

A base model built from a configuration learns to name the two (``source``), and is fine-tuned to say how they lie.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from workers.tasks.data import PicturePrompts, PictureTexts, Split, TaskData, unlike
from workers.tasks.hub import HubData
from workers.tasks.pictures import Pictures, picture_data
from workers.tasks.scenes import SIDE, Scene, scene, shapes_of
from workers.tasks.shapes import draw

HUB = {
    # It has one split. The first 2,200 are CEGI's count, of which the last 200 are held out here.
    "artbench": HubData(
        path="alfredplpl/artbench-pd-256x256",
        splits={"train": "train[:2000]", "test": "train[2000:2200]"},
        columns=("image", "caption"),
        licence="MIT",
    ),
}
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
    del seed
    if dataset in HUB:
        return picture_data(HUB[dataset], _captioned, longest_answer=128)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw_one = partial(scene, made)
    test = [draw_one() for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, draw_one, count) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_split(source, [" and ".join(found.names) for found in source]),
        train=_split(train, [found.caption for found in train]),
        test=_split(test, [found.caption for found in test]),
        longest_input=64,
        longest_answer=16,
    )


def _captioned(pictures: Pictures, captions: Sequence[str]) -> PictureTexts:
    return Split(inputs=PicturePrompts(pictures=pictures, prompts=("",) * len(captions)), labels=tuple(captions))


def _split(scenes: Sequence[Scene], captions: Sequence[str]) -> PictureTexts:
    pictures = draw([shapes_of(one) for one in scenes], SIDE)
    return Split(inputs=PicturePrompts(pictures=pictures, prompts=("",) * len(scenes)), labels=tuple(captions))
