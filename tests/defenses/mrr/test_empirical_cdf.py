"""Empirical distribution functions: thresholds, order, tails, and the look-up against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.defenses.mrr.empirical_cdf import EmpiricalCDF


def fitted(scores, label, classes=2, least=1, capacity=500):
    cdf = EmpiricalCDF(scores.shape[1], classes, capacity)
    cdf.fit(scores, label, least)
    return cdf


def draw(count, seed=0, columns=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, columns, generator=generator), torch.randint(2, (count,), generator=generator)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5])
def test_thresholds_reproduce_the_rate_on_their_own_data(rate):
    scores, label = draw(400)
    thresholds = fitted(scores, label).thresholds(rate)
    for number in range(2):
        mine = scores[label == number]
        above = (mine > thresholds[:, number]).sum(0)
        assert above.tolist() == [int(rate * len(mine) + 1e-9)] * 3


def test_values_inside_and_beyond_by_hand():
    cdf = fitted(torch.tensor([[1.0], [2.0], [4.0]]), torch.zeros(3, dtype=torch.int64), classes=1)
    at = lambda value: float(cdf(torch.tensor([[value]]), torch.tensor([0])))  # noqa: E731
    assert [at(1.0), at(2.0), at(3.0), at(4.0)] == pytest.approx([0.25, 0.5, 0.625, 0.75])
    spread = float(np.std([1, 2, 4]))
    assert at(5.0) == pytest.approx(1 - 0.25 * np.exp(-1 / spread))
    assert at(0.0) == pytest.approx(0.25 * np.exp(-1 / spread))
    assert float(cdf.level(0.34)[0]) == pytest.approx(0.5)
    assert float(cdf.thresholds(0.34)) == 2.0


@given(st.lists(st.floats(-3, 4, width=32), min_size=2, max_size=40), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_never_decreasing_and_the_look_up_is_numpys(points, seed):
    scores = torch.rand(37, 2, generator=torch.Generator().manual_seed(seed)).mul(8).round() / 8  # with ties
    cdf = fitted(scores, torch.zeros(37, dtype=torch.int64), classes=1, capacity=64)
    asked = torch.tensor(sorted(points))[:, None].expand(-1, 2).contiguous()
    label = torch.zeros(len(asked), dtype=torch.int64)
    found = cdf(asked, label)
    assert (found.diff(dim=0) >= -1e-6).all()
    assert ((found > 0) & (found < 1)).all() or asked.abs().max() > 3
    for column in range(2):
        theirs = np.searchsorted(np.sort(scores[:, column].numpy()), asked[:, column].numpy(), side="right")
        assert cdf._above(asked, label)[:, column].tolist() == theirs.tolist()


def test_small_classes_share_and_large_samples_are_thinned():
    scores, label = draw(300)
    label[:] = 0
    label[:5] = 1
    cdf = fitted(scores, label, least=10)
    assert cdf.counts.tolist() == [295, 300]
    thin = fitted(scores, label, least=None, capacity=101)
    assert thin.counts.tolist() == [101, 101]
    assert (thin.thresholds(0.1) - torch.quantile(scores, 0.9, dim=0)[:, None]).abs().max() < 0.02
