"""The defenders' loss against values worked out by hand."""

import pytest
import torch

from robustforge.defenses.mrr.losses import (
    center_pull,
    center_separation,
    long_text_regularizer,
    nearest_center_distance,
    released_regularizer,
)
from robustforge.types import UserError

CENTRES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])
FEATURES = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
Y = torch.tensor([0, 2])


def test_pull_by_hand():
    # |(0.6, 0.8) - (1, 0)|^2 = 0.16 + 0.64 = 0.8; |(0, 1) - (-2, 0)|^2 = 5
    assert float(center_pull(FEATURES, CENTRES, Y)) == pytest.approx(0.5 * (0.8 + 5) / 2)
    assert float(center_pull(FEATURES, CENTRES, Y, "sum")) == pytest.approx(0.5 * (0.8 + 5))
    with pytest.raises(UserError, match="mean, sum"):
        center_pull(FEATURES, CENTRES, Y, "max")


def test_separation_by_hand():
    # nearest to C_0 is C_1: product 0, d = 2 -> -2; nearest to C_2 is C_1 (d = 5 < 9): product 0 -> -5
    assert float(center_separation(CENTRES, Y)) == pytest.approx((-2 - 5) / 2)
    # two centers that point the same way: C_0 . C_1 = 0.5, d = 0.25 -> 0.125 - 0.25
    near = torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    assert float(center_separation(near, torch.tensor([0]))) == pytest.approx(-0.125)


def test_released_regularizer_by_hand():
    terms = released_regularizer(FEATURES, CENTRES, Y, "sum")
    assert float(terms["pull"]) == pytest.approx(2.9)
    assert float(terms["separation"]) == pytest.approx(-3.5)
    assert float(terms["length"]) == pytest.approx(100 * abs(1 - 4))


def test_long_text_regularizer_by_hand():
    terms = long_text_regularizer(FEATURES, CENTRES, Y)
    # others of image 0: C_1 0.36 + 0.04 = 0.4, C_2 2.6^2 + 0.64 = 7.4; of image 1: C_0 2, C_1 0
    assert float(terms["pull"]) == pytest.approx((0.8 + 5) / 2)
    assert float(terms["separation"]) == pytest.approx(-(0.4 + 7.4 + 2 + 0) / 2)
    assert float(terms["length"]) == pytest.approx(1.0)


def test_descending_pulls_features_in_and_centres_apart():
    features, centers = FEATURES.clone().requires_grad_(True), CENTRES.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(center_pull(features, CENTRES, Y), features)
    moved = FEATURES - 0.1 * gradient
    assert center_pull(moved, CENTRES, Y) < center_pull(FEATURES, CENTRES, Y)
    (gradient,) = torch.autograd.grad(center_separation(centers, Y), centers)
    apart = CENTRES - 0.01 * gradient
    assert (apart[0] - apart[1]).norm() > (CENTRES[0] - CENTRES[1]).norm()


def test_nearest_center_distance_takes_any_class():
    assert nearest_center_distance(FEATURES, CENTRES).tolist() == pytest.approx([0.4, 0.0])
