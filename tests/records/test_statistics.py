"""Intervals and tests against values worked out by hand, or against the normal approximation."""

import numpy as np
import pytest

from robustforge.records.statistics import Outcomes, mcnemar, paired_difference, wilson


def test_wilson_against_hand_value():
    # p = .5, n = 10, z = 1.96: center .5, half = 1.96 * sqrt(.025 + .0096) / 1.38416 = .2634
    assert wilson(5, 10) == pytest.approx((23.66, 76.34), abs=0.01)
    assert wilson(0, 10) == pytest.approx((0.0, 27.75), abs=0.01)
    assert wilson(10, 10) == pytest.approx((72.25, 100.0), abs=0.01)
    assert wilson(0, 0) == (0.0, 100.0)


def test_mcnemar_by_hand():
    assert mcnemar(3, 0) == pytest.approx(1 / 8)
    assert mcnemar(2, 1) == pytest.approx((3 + 1) / 8)
    assert mcnemar(8, 1) == pytest.approx((9 + 1) / 512)
    assert mcnemar(0, 5) == mcnemar(0, 0) == 1
    assert 0 < mcnemar(4000, 3000) < 1e-30


def test_the_bootstrap_against_the_normal_approximation():
    """2,000 samples: 300 only the first holds, 100 only the second; the difference has a known variance."""
    n, first, second = 2000, 300, 100
    index = np.random.default_rng(1).permutation(n)
    order = np.argsort(index)
    a = Outcomes(index[order], (np.arange(n) < first)[order])
    b = Outcomes(index[order], ((np.arange(n) >= first) & (np.arange(n) < first + second))[order])
    found = paired_difference(a, b)
    mean = (first - second) / n
    error = np.sqrt(((first + second) / n - mean**2) / n)
    assert found.points == pytest.approx(100 * mean)
    assert (found.low, found.high) == pytest.approx(
        (100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error)), abs=0.12
    )
    assert paired_difference(a, b) == found  # seeded
    assert paired_difference(b, a).points == -found.points


def test_paired_difference():
    index = np.arange(200)
    first, second = Outcomes(index, index < 150), Outcomes(index[::1], index < 100)
    result = paired_difference(first, second)
    assert (result.points, result.n) == (25, 200)
    # standard error 100 * sqrt(.25 * .75 / 200) = 3.06
    assert result.low == pytest.approx(25 - 1.96 * 3.06, abs=1)
    assert result.high == pytest.approx(25 + 1.96 * 3.06, abs=1)
    same = paired_difference(first, first)
    assert (same.points, same.low, same.high) == (0, 0, 0)
    assert paired_difference(first, Outcomes(index[100:], index[100:] < 100)).n == 100
    with pytest.raises(ValueError, match="share no sample"):
        paired_difference(first, Outcomes(index + 1000, index < 1))
