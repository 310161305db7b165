"""Scores of detected objects: mean average precision as the COCO evaluation counts it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from workers.errors import InputError, UnknownNameError
from workers.quality.packages import installed
from workers.quality.result import ScoreResult, check_pairs, scored, unknown
from workers.tasks.data import Boxes

_PLACES = {"map": 0, "map_50": 1, "map_75": 2}
"""Where the COCO evaluation's summary holds each."""


def evaluate(name: str, predictions: Sequence[Boxes], references: Sequence[Boxes]) -> ScoreResult:
    """``map`` (mean over overlaps of 0.50 to 0.95), ``map_50`` or ``map_75`` of the objects of images.

    By the COCO evaluation itself: all areas, 100 objects an image at most; the mean is over the classes that truly
    occur, and unknown where none does. There are no figures per image.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each image, ragged boxes, or no confidences.
        JobError: pycocotools is missing.
    """
    if name not in _PLACES:
        raise UnknownNameError("score", name, _PLACES)
    check_pairs(name, len(predictions), len(references))
    for index, (said, true) in enumerate(zip(predictions, references, strict=True)):
        _check(index, said, confident=True)
        _check(index, true, confident=False)
    if not any(map(len, references)):
        return unknown(name, "no image has an object")
    if not any(map(len, predictions)):
        return scored(name, 0.0)
    return scored(name, _summary(name, predictions, references)[_PLACES[name]])


def _check(index: int, boxes: Boxes, *, confident: bool) -> None:
    if np.shape(boxes.corners) != (len(boxes), 4) and len(boxes):
        raise InputError(f"Image {index} has {len(boxes)} labels and corners {np.shape(boxes.corners)}; give (n, 4).")
    if confident and len(boxes) and (boxes.confidences is None or len(boxes.confidences) != len(boxes)):
        raise InputError(f"Image {index} has predicted objects without a confidence each; give one for each.")


def _summary(name: str, predictions: Sequence[Boxes], references: Sequence[Boxes]) -> list[float]:
    """The twelve figures of the COCO evaluation."""
    with installed(name, "pycocotools"):
        from pycocotools.coco import COCO  # noqa: PLC0415 - a door
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - a door

    objects = [row for image, boxes in enumerate(references) for row in _rows(image, boxes)]
    classes = sorted({int(one) for boxes in (*predictions, *references) for one in boxes.labels})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        # An object numbered 0 would count as not matched.
        truth.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(references))],
            "categories": [{"id": one} for one in classes],
            "annotations": [{**row, "id": number} for number, row in enumerate(objects, start=1)],
        }
        truth.createIndex()
        found = truth.loadRes([row for image, boxes in enumerate(predictions) for row in _rows(image, boxes)])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats]


def _rows(image: int, boxes: Boxes) -> list[dict[str, object]]:
    """The objects as COCO writes them: left, top, width, height."""
    rows: list[dict[str, object]] = []
    for place in range(len(boxes)):
        left, top, right, bottom = (float(edge) for edge in boxes.corners[place])
        row: dict[str, object] = {
            "image_id": image,
            "category_id": int(boxes.labels[place]),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if boxes.confidences is not None:
            row["score"] = float(boxes.confidences[place])
        rows.append(row)
    return rows
