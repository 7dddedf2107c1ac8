"""What the configuration of a data set may say."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from robustforge.data.values import image_shape, per_channel, whole
from robustforge.types import UserError


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (5, 16, 16), (5, 1, 1), (8, 128, 1), (1, 1, 1), (3, 5, 4), (4, 4, 4)]
)
def test_shapes_that_are_channels_first(shape):
    assert image_shape(shape) == image_shape(OmegaConf.create(list(shape))) == shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([32, 32, 3], r"channels last: .* here \[3,32,32\]"),
        ([28, 28, 1], r"here \[1,28,28\]"),
        ([96, 128, 3], r"here \[3,96,128\]"),
        ([32, 32], r"dataset.shape is \[32, 32\]: give \[channels"),
        ([3, 32.5, 32], r"dataset.shape is \[3, 32.5, 32\]: give"),
        ([3, 0, 32], "give"),
        ("3,32,32", "dataset.shape is 3,32,32: give"),
        (32, "dataset.shape is 32: give"),
        (None, "dataset.shape is None: give"),
        ([True, 8, 8], "give"),
    ],
)
def test_other_shapes_are_refused(shape, message):
    with pytest.raises(UserError, match=message):
        image_shape(shape)


@pytest.mark.parametrize("value", [1, 2.5, "ten", None, True, float("nan")])
def test_whole_numbers(value):
    assert whole("num_classes", np.int64(2), 2) == 2
    with pytest.raises(UserError, match=f"dataset.num_classes is {value}: give 2 or more"):
        whole("num_classes", value, 2)


def test_statistics_are_in_units_of_pixels():
    assert per_channel("mean", [0.5], 3) == (0.5,) * 3
    assert per_channel("mean", [0], 1) == (0.0,)
    assert per_channel("std", (0.1, 1), 2) == (0.1, 1.0)
    for key, values in (("mean", [125.3]), ("std", [63.0]), ("mean", [-0.1]), ("std", [0.0]), ("mean", [float("nan")])):
        with pytest.raises(UserError, match=rf"dataset.{key} is \[.*\]: give it in units of \[0, 1\] pixels"):
            per_channel(key, values, 1)
    with pytest.raises(UserError, match="dataset.mean has 2 values: give one, or one for each of 3"):
        per_channel("mean", [0.5, 0.5], 3)
