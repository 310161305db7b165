"""Task ``image-classification``: what is in the picture?

Data: CIFAR-10 and CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; licence not
stated) and ImageNet-1k (Russakovsky et al., arXiv 1409.0575; its terms must be accepted on the hub), the three of
arXiv 2311.16863, fetched when a job needs them; and ``shapes-tiny``, drawn here.

A base model built from a configuration learns large clean shapes in the middle (``source``), and is fine-tuned on
smaller ones, off the middle and in noise.
"""

from __future__ import annotations

import numpy as np

from workers.tasks.data import AnySplit, Images, Split, TaskData
from workers.tasks.hub import HubData, class_names, table_of
from workers.tasks.pictures import Pictures
from workers.tasks.shapes import COLOURS, KINDS, Shape, draw, noisy

HUB = {
    "cifar10": HubData(
        path="uoft-cs/cifar10",
        splits={"train": "train", "test": "test"},
        columns=("img", "label"),
        licence="not stated",
    ),
    "cifar100": HubData(
        path="uoft-cs/cifar100",
        splits={"train": "train", "test": "test"},
        columns=("img", "fine_label"),
        licence="not stated",
    ),
    # The labels of its own test split are not public.
    "imagenet-1k": HubData(
        path="ILSVRC/imagenet-1k",
        splits={"train": "train", "test": "validation"},
        columns=("image", "label"),
        licence="ImageNet's terms of access: non-commercial research",
    ),
}
DATA_SEED = 0
"""The same pictures in every job, so that scores of jobs with different seeds can be compared."""
SIDE = 16
"""Pixels."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1200, 1000, 300


def load(dataset: str, seed: int) -> TaskData:
    """Pictures and their classes.

    Args:
        dataset: of ``HUB``, or ``shapes-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        (train, names), (test, _) = (_labelled(HUB[dataset], split) for split in ("train", "test"))
        classes = len(names) or int(train.labels.max()) + 1
        return TaskData(source=None, train=train, test=test, classes=classes, class_names=names)
    made = np.random.default_rng(DATA_SEED)
    return TaskData(
        test=_hard(made, TEST_SAMPLES),
        source=_easy(made, SOURCE_SAMPLES),
        train=_hard(made, TRAIN_SAMPLES),
        classes=len(KINDS),
        class_names=KINDS,
    )


def _labelled(data: HubData, split: str) -> tuple[AnySplit, tuple[str, ...]]:
    """The pictures that have a label, and the names of the labels."""
    table = table_of(data, split)
    image, label = data.columns
    found = [(place, one) for place, one in enumerate(table[label]) if one is not None and one >= 0]
    places = [place for place, _ in found]
    labels = np.asarray([one for _, one in found], dtype=np.int64)
    return Split(inputs=Pictures(table, image, data.path, places), labels=labels), class_names(table, label)


def _easy(made: np.random.Generator, count: int) -> Images:
    return _drawn(made, count, radii=(0.34, 0.42), away=0.03, noise=0.05)


def _hard(made: np.random.Generator, count: int) -> Images:
    return _drawn(made, count, radii=(0.27, 0.35), away=0.11, noise=0.15)


def _drawn(made: np.random.Generator, count: int, *, radii: tuple[float, float], away: float, noise: float) -> Images:
    """So many shapes of any colour, up to ``away`` from the middle each way; lengths are shares of the side."""
    colours = tuple(COLOURS)
    labels = made.integers(len(KINDS), size=count)
    scenes = [
        (
            Shape(
                kind=KINDS[label],
                colour=colours[made.integers(len(colours))],
                x=0.5 + made.uniform(-away, away),
                y=0.5 + made.uniform(-away, away),
                radius=made.uniform(*radii),
            ),
        )
        for label in labels
    ]
    return Split(inputs=noisy(draw(scenes, SIDE), noise, made), labels=labels.astype(np.int64))
