"""Mean average precision, worked out by hand: the COCO evaluation averages precision at recalls 0, 0.01, ..., 1."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from workers.errors import InputError, JobError, UnknownNameError
from workers.quality.detection import Boxes, evaluate

SQUARE, FAR = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
NOTHING = Boxes(corners=np.zeros((0, 4)), labels=np.zeros(0, int), confidences=np.zeros(0))


def true(*objects) -> Boxes:
    """Objects as (corners, label)."""
    return Boxes(corners=np.array([one[0] for one in objects]), labels=np.array([one[1] for one in objects]))


def said(*objects) -> Boxes:
    """Objects as (corners, label, confidence)."""
    return Boxes(
        corners=np.array([one[0] for one in objects]),
        labels=np.array([one[1] for one in objects]),
        confidences=np.array([one[2] for one in objects]),
    )


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown score 'map_5'.*Known: map, map_50, map_75"):
        evaluate("map_5", [NOTHING], [true((SQUARE, 0))])


def test_predicted_objects_without_confidences_are_refused() -> None:
    with pytest.raises(InputError, match="Image 0 has predicted objects without a confidence each"):
        evaluate("map", [true((SQUARE, 0))], [true((SQUARE, 0))])


def test_ragged_boxes_are_refused() -> None:
    ragged = Boxes(corners=np.zeros((1, 4)), labels=np.zeros(2, int))
    with pytest.raises(InputError, match=r"Image 1 has 2 labels and corners \(1, 4\); give \(n, 4\)"):
        evaluate("map", [NOTHING, NOTHING], [true((SQUARE, 0)), ragged])


def test_without_pycocotools_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(JobError, match=r"needs the package pycocotools, .*wattledger\[quality\]"):
        evaluate("map", [said((SQUARE, 0, 0.9))], [true((SQUARE, 0))])


def test_images_without_objects_have_no_score() -> None:
    result = evaluate("map", [said((SQUARE, 0, 0.9))], [NOTHING])
    assert (result.value, result.reason) == (None, "no image has an object")


def test_nothing_predicted_scores_nothing() -> None:
    assert evaluate("map", [NOTHING], [true((SQUARE, 0))]).value == 0


@pytest.mark.parametrize("name", ["map", "map_50", "map_75"])
def test_every_object_found_exactly_scores_all(name: str) -> None:
    images = [true((SQUARE, 0), (FAR, 3)), NOTHING]
    found = [said((FAR, 3, 0.2), (SQUARE, 0, 0.9)), NOTHING]
    assert evaluate(name, found, images).value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("name", "expected"), [("map", 0.6), ("map_50", 1), ("map_75", 1)])
def test_an_overlap_counts_up_to_its_threshold(name: str, expected: float) -> None:
    # The example of torchmetrics' documentation: 304 of 392 columns overlap, 0.776: right at 6 of the 10 thresholds.
    found = said(((258.0, 41.0, 606.0, 285.0), 0, 0.536))
    assert evaluate(name, [found], [true(((214.0, 41.0, 562.0, 285.0), 0))]).value == pytest.approx(expected, rel=1e-12)


def test_half_the_objects_found_is_precision_one_at_51_of_101_recalls() -> None:
    found = [said((SQUARE, 0, 0.9))]
    assert evaluate("map", found, [true((SQUARE, 0), (FAR, 0))]).value == pytest.approx(51 / 101, rel=1e-12)


def test_a_surer_wrong_object_halves_the_precision_and_a_less_sure_one_costs_nothing() -> None:
    surer, less = said((FAR, 0, 0.9), (SQUARE, 0, 0.5)), said((FAR, 0, 0.1), (SQUARE, 0, 0.5))
    assert evaluate("map", [surer], [true((SQUARE, 0))]).value == pytest.approx(0.5, rel=1e-12)
    assert evaluate("map", [less], [true((SQUARE, 0))]).value == pytest.approx(1, rel=1e-12)


def test_classes_that_truly_occur_count_alike() -> None:
    images, found = [true((SQUARE, 0), (FAR, 1))], [said((SQUARE, 0, 0.9), (FAR, 2, 0.9))]
    assert evaluate("map", found, images).value == pytest.approx(0.5, rel=1e-12)


def test_the_order_of_images_does_not_matter() -> None:
    images = [true((SQUARE, 0)), true((FAR, 0)), true((SQUARE, 1))]
    found = [said((SQUARE, 0, 0.9)), said((SQUARE, 0, 0.8)), said((SQUARE, 1, 0.3))]
    assert evaluate("map", found, images).value == evaluate("map", found[::-1], images[::-1]).value
