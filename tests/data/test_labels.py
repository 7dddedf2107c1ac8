"""Labels where they enter, and classes that cannot be learned."""

import numpy as np
import pytest

from robustforge.data.labels import check_classes, check_labels
from robustforge.types import UserError

Y = np.array([0, 2, 1, 1])


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16, ">i4", np.uint64])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_integers_become_int64(kind, shape):
    found = check_labels(Y.astype(kind).reshape(shape), 3)
    assert found.dtype == np.int64
    assert found.dtype.isnative
    assert found.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.eye(3, dtype=np.int64)[Y], "one-hot"),
        (np.eye(3, dtype=np.float32)[Y], "one-hot"),
        (np.eye(3, dtype=bool)[Y], "one-hot"),
        (Y.astype(np.float32), "whole floats"),
        (Y.astype(float)[:, None], "whole floats"),
    ],
)
def test_what_means_the_same_is_converted_and_said(y, said, caplog):
    caplog.set_level("INFO")
    assert check_labels(y, 3, "y_train").tolist() == Y.tolist()
    assert f"y_train: {said}" in caplog.text


def test_booleans_are_two_classes(caplog):
    caplog.set_level("INFO")
    assert check_labels(np.array([True, False]), 2).tolist() == [1, 0]
    assert "True as label 1" in caplog.text


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y - 1, "labels from -1 to 1 where num_classes is 3: labels count from 0, so renumber"),
        (Y + 1, "labels from 1 to 3 where num_classes is 3: labels count from 0, so subtract 1"),
        (np.arange(5), "from 0 to 4 .*: set num_classes=5"),
        (np.array([0, 5, 7]), "from 0 to 7 .*: renumber the labels from 0 without gaps"),
        (np.array([0, 255], np.uint8), "from 0 to 255 .*: renumber"),
        (np.array([0, 2**63], np.uint64), "renumber"),
        (Y.astype(float) + np.inf, "from inf to inf"),
        (Y + 0.5, "float64 with values that are not whole"),
        (Y * np.nan, "not whole"),
        (np.array(["ape", "bee"]), "type <U3: store labels as integers 0 .. 2, numbered alike"),
        (np.array([b"0", b"1"]), "type |S1"),
        (np.array([0, None]), "type object"),
        (Y.astype(complex), "type complex128"),
        (np.full((4, 3), 1 / 3), r"shape \[4, 3\]: store one label for each image \(y.argmax"),
        (np.ones((4, 3), int), "one label for each image"),
        (np.eye(4)[Y], "one label for each image"),
        (np.array(1), r"shape \[\]: store one label"),
    ],
    ids=lambda value: value if isinstance(value, str) else "y",
)
def test_what_is_doubtful_is_refused_with_the_right_advice(y, message):
    with pytest.raises(UserError, match=f"^y_test .*{message}"):
        check_labels(y, 3, "y_test")


def test_no_labels_are_no_error_here():
    assert check_labels(np.zeros(0, np.uint8), 3).shape == (0,)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            [0, 1, 2],
            [0, 1],
            "of 3 classes where dataset.num_classes is 5, and class 3 has none: set dataset.num_classes=3",
        ),
        ([0, 1, 2, 4], [0], "class 3 has none: renumber the labels without gaps and set dataset.num_classes=4"),
        ([0, 1, 2, 4], [3], "class 3 has none: it has test images and would be judged without training"),
        ([0, 1, 2], [4], "class 4 has none: it has test images"),
        ([0, 0], [0], "class 1 has none: a classifier needs two classes"),
    ],
)
def test_declared_classes_without_training_images(train, test, message, caplog):
    y_train, y_test = np.array(train), np.array(test)
    with pytest.raises(
        UserError, match=f"^The training images of 'mine' .*{message}.*; or keep .* dataset.limit_train="
    ):
        check_classes(y_train, y_test, 5, "'mine'", limited=False)
    check_classes(y_train, y_test, 5, "'mine'", limited=True)
    assert message in caplog.text


def test_classes_without_test_images_are_a_warning(caplog):
    check_classes(np.arange(5), np.array([0, 0]), 5, "'mine'", limited=False)
    assert "'mine' has no test images of 4 of 5 classes" in caplog.text
    caplog.clear()
    check_classes(np.arange(5), np.arange(5), 5, "'mine'", limited=False)
    assert not caplog.text
