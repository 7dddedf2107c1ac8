"""Correlations of detectors' scores against numpy, and the file and picture that show them."""

import numpy as np
import torch

from robustforge.evaluation.correlation import pearson
from robustforge.reporting.figures.correlation import correlation


def test_pearson_is_numpys_and_a_constant_correlates_with_nothing():
    scores = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(pearson(scores).numpy(), np.corrcoef(scores.numpy().T), atol=1e-6)
    opposite = torch.stack([scores[:, 0], -2 * scores[:, 0], torch.ones(50)], 1)
    found = pearson(opposite)
    assert found[0, 1] < -0.999
    assert found[2].abs().max() < 1e-6


def test_the_picture_is_drawn_where_there_are_matrices(tmp_path):
    assert correlation(tmp_path) is None
    np.savez(tmp_path / "correlation.npz", clean=np.eye(3), attacked=np.full((3, 3), -0.2), title="pgd")
    path = correlation(tmp_path)
    assert path == tmp_path / "figures" / "correlation.png"
    assert path.stat().st_size > 2000
