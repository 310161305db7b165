"""Task ``object-detection``: what is in the picture, and where?

Data: COCO 2017 (Lin et al., arXiv 1405.0312; annotations CC BY 4.0) and CPPE-5 (Dagli and Shaikh, arXiv 2112.09569;
licence not stated on the hub), two of the three of arXiv 2311.16863, fetched when a job needs them; and ``boxes-tiny``,
drawn here. The third, Visual Genome, is on the hub only as a script, which the library datasets no longer runs.

A base model built from a configuration learns single shapes, and is fine-tuned on one or two smaller ones in noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workers.errors import JobError
from workers.tasks.data import AnySplit, Boxes, Split, TaskData
from workers.tasks.hub import HubData, class_names, table_of
from workers.tasks.pictures import Pictures
from workers.tasks.shapes import Shape, draw, noisy

HUB = {
    "coco": HubData(
        path="detection-datasets/coco",
        splits={"train": "train", "test": "val"},
        columns=("image", "objects"),
        licence="CC BY 4.0 (annotations); the pictures' are Flickr's",
    ),
    "cppe-5": HubData(
        path="rishitdagli/cppe-5",
        splits={"train": "train", "test": "test"},
        columns=("image", "objects"),
        licence="not stated",
    ),
}
AS_CORNERS = frozenset({"coco"})
"""The data sets whose ``bbox`` is left, top, right, bottom; in the others it is left, top, width, height, as COCO's own
files have it."""
DATA_SEED = 0
"""The same pictures in every job, so that scores of jobs with different seeds can be compared."""
SIDE = 32
"""Pixels."""
LOOKS = (("circle", "red"), ("square", "green"), ("triangle", "blue"))
"""Kind and colour of each class: a detector of a few thousand weights tells colours apart within seconds."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1000, 1500, 150


def load(dataset: str, seed: int) -> TaskData:
    """Pictures and the boxes in them.

    Args:
        dataset: of ``HUB``, or ``boxes-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        (train, names), (test, _) = (_boxed(dataset, split) for split in ("train", "test"))
        return TaskData(source=None, train=train, test=test, classes=len(names), class_names=names)
    made = np.random.default_rng(DATA_SEED)
    return TaskData(
        test=_hard(made, TEST_SAMPLES),
        source=_easy(made, SOURCE_SAMPLES),
        train=_hard(made, TRAIN_SAMPLES),
        classes=len(LOOKS),
        class_names=tuple(kind for kind, _ in LOOKS),
    )


def _boxed(dataset: str, split: str) -> tuple[AnySplit, tuple[str, ...]]:
    """The pictures, those without an object too, and the names of the classes."""
    data = HUB[dataset]
    table = table_of(data, split)
    image, objects = data.columns
    try:
        names = class_names(table, objects, "category")
        labels = tuple(_boxes_of(row, corners=dataset in AS_CORNERS) for row in table[objects])
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(
            f"data set {data.path} has no boxes in its column {objects}: {error}. Each row needs bbox, four numbers "
            "for each object, and category, a class for each; choose another dataset."
        ) from error
    return Split(inputs=Pictures(table, image, data.path, range(len(table))), labels=labels), names


def _boxes_of(row: Mapping[str, Sequence[Any]], *, corners: bool) -> Boxes:
    found = np.asarray(row["bbox"], dtype=np.float64).reshape(-1, 4)
    if not corners:
        found = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    labels = np.asarray(row["category"], dtype=np.int64)
    if len(labels) != len(found):
        raise ValueError(f"{len(found)} boxes and {len(labels)} categories in a row")
    return Boxes(corners=found, labels=labels)


def _easy(made: np.random.Generator, count: int) -> AnySplit:
    return _drawn(made, count, most=1, radii=(0.19, 0.22), away=0.03, noise=0.0)


def _hard(made: np.random.Generator, count: int) -> AnySplit:
    return _drawn(made, count, most=2, radii=(0.15, 0.18), away=0.05, noise=0.1)


def _drawn(
    made: np.random.Generator, count: int, *, most: int, radii: tuple[float, float], away: float, noise: float
) -> AnySplit:
    """Pictures with up to ``most`` shapes, each in a quarter of its own, up to ``away`` from its middle each way."""
    scenes, labels = [], []
    for _ in range(count):
        quarters = made.permutation(4)[: made.integers(1, most, endpoint=True)]
        classes = made.integers(len(LOOKS), size=len(quarters))
        scene = [
            _shape(made, quarter, LOOKS[one], radii, away)
            for quarter, one in zip(quarters.tolist(), classes, strict=True)
        ]
        scenes.append(scene)
        labels.append(Boxes(corners=np.array([shape.corners(SIDE) for shape in scene]), labels=classes))
    return Split(inputs=noisy(draw(scenes, SIDE), noise, made), labels=tuple(labels))


def _shape(
    made: np.random.Generator, quarter: int, look: tuple[str, str], radii: tuple[float, float], away: float
) -> Shape:
    """A shape in a quarter (0 to 3, row by row); lengths are shares of the picture's side."""
    row, column = divmod(quarter, 2)
    return Shape(
        kind=look[0],
        colour=look[1],
        x=0.25 + 0.5 * column + made.uniform(-away, away),
        y=0.25 + 0.5 * row + made.uniform(-away, away),
        radius=made.uniform(*radii),
    )
