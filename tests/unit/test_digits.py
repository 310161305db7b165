"""The digits task: what is learned upright is scored turned, on images nobody learned from."""

import numpy as np
import pytest

from workers.errors import UnknownNameError
from workers.tasks import load_task
from workers.tasks.data import Split, TaskData


@pytest.fixture(scope="module")
def data() -> TaskData:
    return load_task("digits", None, seed=0)


def images_of(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.inputs}


def lean(split: Split) -> float:
    """Pixels by which the top of the mean 1 lies to the right of its bottom."""
    ones = (split.inputs[split.labels == 1, 0] + 1).mean(axis=0)
    centre = (ones * np.arange(8)).sum(axis=1) / ones.sum(axis=1)
    return float(centre[1:3].mean() - centre[5:7].mean())


def test_a_data_set_the_task_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set of task digits 'digits-rotate'.*digits-rotated"):
        load_task("digits", "digits-rotate", seed=0)


def test_no_test_image_is_learned_from(data: TaskData) -> None:
    assert images_of(data.test).isdisjoint(images_of(data.train))
    assert images_of(data.test).isdisjoint(images_of(data.source))


def test_every_bundled_image_is_used_once(data: TaskData) -> None:
    assert len(data.train) == len(data.source) == 1397
    assert len(data.test) == 400
    assert len(images_of(data.train) | images_of(data.test)) == 1797


@pytest.mark.parametrize("name", ["source", "train", "test"])
def test_splits_are_single_channel_float32_images_with_int64_labels(data: TaskData, name: str) -> None:
    split: Split = getattr(data, name)
    assert split.inputs.shape == (len(split), 1, 8, 8)
    assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int64)
    assert split.inputs.min() == -1.0
    assert split.inputs.max() == 1.0
    assert set(split.labels.tolist()) == set(range(data.classes)) == set(range(10))


def test_each_digit_has_its_share_of_the_test_split(data: TaskData) -> None:
    everyone = np.bincount(np.concatenate([data.train.labels, data.test.labels]))
    assert np.abs(np.bincount(data.test.labels) - everyone * 400 / 1797).max() < 1


def test_train_is_the_source_turned_image_by_image(data: TaskData) -> None:
    np.testing.assert_array_equal(data.train.labels, data.source.labels)
    assert not images_of(data.train) & images_of(data.source)


def test_turned_digits_lean_left_and_upright_ones_do_not(data: TaskData) -> None:
    assert abs(lean(data.source)) < 0.5
    assert lean(data.train) < -1
    assert lean(data.test) < -1


def test_every_seed_is_scored_on_the_same_images(data: TaskData) -> None:
    other = load_task("digits", "digits-rotated", seed=7)
    np.testing.assert_array_equal(other.test.inputs, data.test.inputs)
    np.testing.assert_array_equal(other.test.labels, data.test.labels)
