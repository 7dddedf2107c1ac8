"""Minimal-distortion attack on a detector: against a problem whose answer is known, and the search over its weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.detector_cw import DetectorCW, _Weight
from robustforge.types import DefenseOutput, Threat, UserError

ANYWHERE = Threat("l2", 10.0)


def surface(slope=4.0):
    """Class 1 where pixel 0 is above 0.6; risk is pixel 1, which the attacker must bring below the threshold."""

    def respond(x, y=None):
        flat = x.flatten(1)
        logits = torch.stack([torch.zeros(len(x)), slope * (flat[:, 0] - 0.6)], 1)
        return DefenseOutput(logits, flat[:, 1])

    return Surface("toy", lambda x, y: (respond(x).logits,), respond, nn.Identity())


def images(n=5):
    x = torch.full((n, 1, 1, 3), 0.5)
    x[:, 0, 0, 0] = torch.linspace(0.0, 0.5, n)
    x[:, 0, 0, 1] = 0.5
    return x, torch.zeros(n, dtype=torch.int64)


def test_both_constraints_are_met_at_nearly_the_least_distortion():
    x, y = images()
    result = DetectorCW(steps=200, rounds=8, precision="float32")(surface(), x, y, ANYWHERE, threshold=0.2)
    assert result.success.all()
    least = ((0.6 - x[:, 0, 0, 0]).square() + 0.3**2).sqrt()
    found = (result.x_adv - x).flatten(1).norm(dim=1)
    assert (found >= least - 1e-4).all()
    assert (found < 1.1 * least + 0.01).all()
    assert (result.x_adv[:, 0, 0, 2] - 0.5).abs().max() < 0.02  # a pixel that helps nothing stays


def test_black_and_white_pixels_move():
    x = torch.tensor([[[[0.0, 1.0, 0.0]]]])
    result = DetectorCW(steps=200, rounds=6, precision="float32")(
        surface(), x, torch.tensor([0]), ANYWHERE, threshold=0.2
    )
    assert result.success.all()


def test_a_failed_attack_keeps_its_closest_iterate():
    x, y = images(3)
    # label and detector cannot both be had within this ball: 0.35 away at least
    result = DetectorCW(steps=100, rounds=3, precision="float32")(surface(), x, y, Threat("l2", 0.15), threshold=0.2)
    assert not result.success.any()
    moved = (result.x_adv - x).flatten(1).norm(dim=1)
    assert (moved > 0.05).all(), "the released code would have answered a black image, or nothing"
    assert (moved <= 0.15 + 1e-5).all()


def test_a_fixed_weight_that_is_too_small_fails_where_the_search_succeeds():
    x, y = images(4)
    settings = DetectorCW(steps=150, rounds=8, detector_weight=1e-3, precision="float32")
    literal = replace(settings, paper_literal=True)(surface(), x, y, ANYWHERE, threshold=0.2)
    assert not literal.success.any()
    assert settings(surface(), x, y, ANYWHERE, threshold=0.2).success.all()


def test_without_a_threshold_only_the_label_counts():
    x, y = images(3)
    result = DetectorCW(steps=150, rounds=6, precision="float32")(surface(), x, y, ANYWHERE)
    assert result.success.all()
    assert (result.x_adv - x).flatten(1)[:, 1].abs().max() < 0.02


def test_misclassified_images_are_left_alone_and_batches_do_not_matter():
    x, y = images(4)
    attack = DetectorCW(steps=25, rounds=2, precision="float32")
    y[1] = 1  # already wrong, and its risk is low enough
    x[1, 0, 0, 1] = 0.1
    together = attack(surface(), x, y, ANYWHERE, threshold=0.2)
    assert torch.equal(together.x_adv[1], x[1])
    assert together.backwards[1] == 0
    for k in range(4):
        alone = attack(surface(), x[k : k + 1], y[k : k + 1], ANYWHERE, threshold=0.2)
        torch.testing.assert_close(alone.x_adv[0], together.x_adv[k], atol=1e-5, rtol=0)


def test_search_by_hand():
    weight, nobody = _Weight.of(1.0, torch.arange(3)), torch.zeros(3, dtype=torch.bool)
    weight.search(torch.tensor([True, False, False]), torch.tensor([False, True, False]))
    assert weight.now.tolist() == [10.0, 0.5, 1.0]
    # 10 was enough after 1 was not: half-way between
    weight.search(nobody, torch.tensor([True, False, False]))
    assert weight.now.tolist() == [5.5, 0.5, 1.0]


def test_settings_that_would_do_nothing():
    with pytest.raises(UserError, match="rounds is 0: give a whole number of at least 1"):
        DetectorCW(rounds=0)
    with pytest.raises(UserError, match="detector_weight is 0: give a number above 0"):
        DetectorCW(detector_weight=0)
