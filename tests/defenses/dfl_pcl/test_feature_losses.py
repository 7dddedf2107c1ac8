"""Polarized Contrastive and Prototype Conformity losses against numbers worked out by hand."""

import math

import pytest
import torch

from robustforge.defenses.dfl_pcl.losses import (
    MODES,
    angles,
    distances,
    mean_over_others,
    polarized_contrastive_terms,
)
from robustforge.defenses.dfl_pcl.prototype_conformity import prototype_conformity_terms

F = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
C = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-4.0, 0.0]])
Y = torch.tensor([0, 2])


def simplex(classes):
    points = torch.eye(classes) - 1 / classes
    return points / points.norm(dim=1, keepdim=True)


def terms(mode, f=F, c=C, y=Y, **options):
    return {name: value.tolist() for name, value in polarized_contrastive_terms(f, c, y, mode, **options).items()}


def test_signed_normalized_by_hand():
    found = terms("signed_normalized")  # features (1, 0), (0, 1); centroids (1, 0), (0, 1), (-1, 0)
    assert found["intra"] == pytest.approx([0, math.sqrt(2)], abs=1e-6)
    assert found["inter"] == pytest.approx([-(math.sqrt(2) + 2) / 2, -(math.sqrt(2) + 0) / 2], abs=1e-6)
    right = math.acos(-(1 - 1e-6))  # opposite centroids: clamped
    assert found["angle"] == pytest.approx([-(math.pi / 2 + right) / 2, -(right + math.pi / 2) / 2], abs=1e-3)


def test_signed_raw_by_hand():
    found = terms("signed_raw", margin=5.0)
    assert found["intra"] == pytest.approx([1, math.sqrt(16 + 4)])
    assert found["inter"] == pytest.approx([(5 - math.sqrt(10) + 0) / 2, (5 - math.sqrt(8) + 5 - 1) / 2])
    assert found["angle"] == pytest.approx(terms("signed_normalized")["angle"])


def test_paper_literal_by_hand():
    centroids = torch.tensor([[0.5, 0.0], [0.0, 0.5], [2.0, 0.0]])
    found = terms("paper_literal", c=centroids)
    assert found["intra"] == pytest.approx([2.5, math.sqrt(8)])
    assert found["inter"] == pytest.approx([(math.sqrt(9.25) + 1) / 2, (math.sqrt(4.25) + 1.5) / 2])
    # products 0 and 1 (clamped) for class 0; 1 and 0 for class 2
    almost = math.acos(1 - 1e-6)
    assert found["angle"] == pytest.approx([(math.pi / 2 + almost) / 2] * 2, abs=1e-3)


def test_optimum_for_ten_classes():
    points = simplex(10)
    torch.testing.assert_close(points @ points.T, torch.where(torch.eye(10) > 0, 1.0, -1 / 9), atol=1e-6, rtol=0)
    found = polarized_contrastive_terms(7 * points, 0.3 * points, torch.arange(10))
    assert found["intra"].abs().max() < 1e-6
    assert -found["inter"].mean().item() == pytest.approx(1.4907, abs=1e-4)
    assert -found["angle"].mean().item() == pytest.approx(1.6821, abs=1e-4)
    assert sum(value.mean() for value in found.values()).item() == pytest.approx(-3.1728, abs=1e-4)


def test_the_simplex_is_not_the_least_value():
    """Five orthogonal axes, opposite classes at their ends: 1/9 of the pairs at pi, the others at pi/2."""
    points = torch.cat([torch.eye(5), -torch.eye(5)])
    found = polarized_contrastive_terms(points, points, torch.arange(10))
    expected = -(2 + math.pi + 8 * (math.sqrt(2) + math.pi / 2)) / 9
    assert expected < -3.22
    assert sum(value.mean() for value in found.values()).item() == pytest.approx(expected, abs=1e-3)


def descend(mode, steps=400):
    torch.manual_seed(0)
    f, c = torch.randn(10, 12, requires_grad=True), torch.randn(10, 12, requires_grad=True)
    optimizer = torch.optim.Adam([f, c], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(value.mean() for value in polarized_contrastive_terms(f, c, torch.arange(10), mode).values())
        loss.backward()
        optimizer.step()
    apart = distances(f.detach(), c.detach())
    return loss.item(), apart[~torch.eye(10, dtype=torch.bool)].mean().item(), angles(c.detach())


def test_descent_spreads_the_classes_where_the_sign_is_right():
    loss, others, between = descend("signed_normalized")
    assert loss == pytest.approx(-3.1728, abs=0.02)
    assert others > 1.48
    assert between[~torch.eye(10, dtype=torch.bool)].rad2deg().min() > 75


def test_the_printed_sign_collapses_all_classes():
    _, others, between = descend("paper_literal")
    assert others < 0.5, "features are next to the centroids of all other classes"
    assert between[~torch.eye(10, dtype=torch.bool)].mean().rad2deg() < 30


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_finite_where_things_coincide(mode):
    torch.manual_seed(0)
    c = torch.randn(4, 6)
    c[1] = 2 * c[0]  # parallel
    c[2] = -c[0]  # opposite
    c[3] = c[0]  # the same
    f = torch.cat([c, 3 * c[:1], torch.zeros(1, 6)])  # on centroids, parallel to one, and nothing at all
    f, c = f.requires_grad_(True), c.requires_grad_(True)
    y = torch.tensor([0, 1, 2, 3, 1, 2])
    sum(value.sum() for value in polarized_contrastive_terms(f, c, y, mode).values()).backward()
    for gradient in (f.grad, c.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_lengths_do_not_matter_on_the_sphere():
    one, two = (polarized_contrastive_terms(s * F, C, Y) for s in (1.0, 100.0))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_half_precision_features_do_not_blur_the_terms():
    with torch.autocast("cpu", torch.bfloat16):
        found = polarized_contrastive_terms(simplex(10).bfloat16(), simplex(10), torch.arange(10))
    assert all(value.dtype == torch.float32 for value in found.values())
    assert -found["angle"].mean().item() == pytest.approx(1.6821, abs=1e-4)


def test_mean_over_others_and_unknown_mode():
    assert mean_over_others(torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([2])).tolist() == [1.5]
    with pytest.raises(ValueError, match="signed_normalized, signed_raw, paper_literal"):
        polarized_contrastive_terms(F, C, Y, "cosine")


def test_prototype_conformity_by_hand():
    repelling = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    found = prototype_conformity_terms(F, C, repelling, Y)
    assert found["proximity"].tolist() == pytest.approx([1, 20])
    assert found["contrast"].tolist() == pytest.approx([-(9 + 34) / 2, -(5 + 4) / 2])
    clamped = prototype_conformity_terms(F, C, repelling, Y, largest=10.0)
    assert clamped["proximity"].tolist() == pytest.approx([1, 10])
    assert clamped["contrast"].tolist() == pytest.approx([-(9 + 10) / 2, -(5 + 4) / 2])


def test_prototype_gradient_is_finite_on_the_prototype():
    f = C.clone().requires_grad_(True)
    sum(v.sum() for v in prototype_conformity_terms(f, C, C, torch.arange(3)).values()).backward()
    assert f.grad.isfinite().all()
