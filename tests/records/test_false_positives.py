"""False positives at a share of detected images, counted by hand."""

import math

import numpy as np
import pytest

from robustforge.records.detection import Detection


@pytest.mark.parametrize(("detected", "expected"), [(1.0, 60.0), (0.75, 20.0), (0.5, 20.0), (0.25, 0.0)])
def test_the_threshold_is_the_highest_that_catches_enough(detected, expected):
    clean, attacked = np.array([0.1, 0.2, 0.3, 0.4, 0.7]), np.array([0.25, 0.5, 0.7, 0.9])
    assert Detection(clean, attacked, 0, 4, 1).false_positives(detected) == pytest.approx(expected)


def test_nothing_changed_is_no_number():
    assert math.isnan(Detection(np.array([0.1]), np.array([]), 0, 3, 1).false_positives(0.9))
