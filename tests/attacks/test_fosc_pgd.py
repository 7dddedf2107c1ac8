"""FOSC against its definition, and an attack that stops where it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustforge.attacks.core.geometry import inside
from robustforge.defenses.dynamic.fosc_pgd import FoscPGD, first_order_stationarity
from robustforge.types import Threat, UserError

THREAT = Threat("linf", 0.1)


def test_by_hand():
    x = torch.zeros(2, 1, 1, 2)
    x_adv = torch.tensor([[0.1, -0.1], [0.05, 0.0]]).view_as(x)
    gradient = torch.tensor([[3.0, -1.0], [2.0, 4.0]]).view_as(x)
    found = first_order_stationarity(gradient, x_adv, x, THREAT)
    # at the corner that the gradient points to, nothing is left; else 0.1 * 6 - 0.05 * 2
    assert found.tolist() == pytest.approx([0, 0.5], abs=1e-7)
    l2 = first_order_stationarity(gradient, x_adv, x, Threat("l2", 0.2))
    assert l2.tolist() == pytest.approx([0.2 * 10**0.5 - 0.4, 0.2 * 20**0.5 - 0.1], abs=1e-6)


@pytest.mark.parametrize("threat", [THREAT, Threat("l2", 1.0)], ids=str)
def test_never_negative_in_the_ball(threat):
    torch.manual_seed(0)
    x, delta, gradient = torch.rand(200, 1, 4, 4), torch.rand(200, 1, 4, 4) - 0.5, torch.randn(200, 1, 4, 4)
    size = delta.abs().amax((1, 2, 3)) if threat.norm == "linf" else delta.flatten(1).norm(dim=1)
    x_adv = x + delta * (threat.eps / size).view(-1, 1, 1, 1)
    assert (first_order_stationarity(gradient, x_adv, x, threat) >= -1e-5).all()


def test_a_bound_saves_steps_and_stays_in_the_ball(victim, images):
    x, y = images
    attack = FoscPGD(precision="float32")
    all_steps, some, one = (replace(attack, criterion=c)(victim, x, y, THREAT) for c in (0.0, 0.5, 1e9))
    assert (all_steps.backwards == 10).all()
    assert (one.backwards == 2).all()  # the first step, and the gradient that ends it
    assert 2 < some.backwards.float().mean() < 10
    for result in (all_steps, some, one):
        assert inside(result.x_adv, x, THREAT).all()
    assert all_steps.success.sum() >= some.success.sum() >= one.success.sum()
    assert all_steps.success.float().mean() > 0.5


def test_stopped_images_are_converged_and_others_have_taken_all_steps(victim, images):
    x, y = images
    result = FoscPGD(criterion=0.5, precision="float32")(victim, x, y, THREAT)
    leaf = result.x_adv.clone().requires_grad_(True)
    logits = victim.system(leaf, y).logits
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y, reduction="sum"), leaf)
    fosc = first_order_stationarity(gradient, result.x_adv, x, THREAT)
    stopped = result.backwards < 10
    assert stopped.any()
    assert (fosc[stopped] <= 0.5 + 1e-4).all()


def test_the_answer_does_not_depend_on_the_batch(victim, images):
    x, y = images
    attack, index = FoscPGD(criterion=0.3, precision="float32"), torch.arange(len(y))
    whole = attack(victim, x, y, THREAT, index=index, seed=4).x_adv
    parts = [attack(victim, x[r], y[r], THREAT, index=index[r], seed=4).x_adv for r in index.split(24)]
    np.testing.assert_allclose(whole, torch.cat(parts), atol=1e-6)


def test_other_image_sizes():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 5 * 7, 4))
    from robustforge.defenses.base import classify

    x = torch.rand(6, 3, 5, 7)
    result = FoscPGD(criterion=0.01)(classify(network)["end_to_end"], x, torch.arange(6) % 4, THREAT)
    assert inside(result.x_adv, x, THREAT).all()


def test_impossible_values():
    with pytest.raises(UserError, match="criterion is -1: give a number of at least 0"):
        FoscPGD(criterion=-1)
    with pytest.raises(UserError, match="at least 1"):
        FoscPGD(steps=0)
