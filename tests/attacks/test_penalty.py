"""Descent on penalties, on a surface whose penalties are squared distances to corners of the image cube."""

from functools import partial

import pytest
import torch
from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.penalty import PenaltyDescent, minus_penalty
from robustforge.types import DefenseOutput, Threat, UserError

CENTRES = torch.stack([torch.full((4,), value) for value in (0.1, 0.5, 0.9)])


def penalties(x):
    return (x.flatten(1)[:, None] - CENTRES).square().sum(2)


@pytest.fixture
def surface():
    """Class c's penalty is |x - center_c|^2, and so is the risk of the predicted class."""

    def system(x, _):
        found = penalties(x)
        return DefenseOutput(-found, found.amin(1))

    return Surface("white_box", lambda x, _: (-torch.log1p(penalties(x)),), system, nn.Identity())


X, Y = torch.full((3, 1, 2, 2), 0.15), torch.tensor([0, 0, 0])
ATTACK = partial(PenaltyDescent, precision="float32", lr=0.02, steps=120)


def test_the_logarithm_is_undone():
    penalty = torch.tensor([[0.0, 0.5, 7.0]])
    assert minus_penalty(-torch.log1p(penalty), torch.tensor([2])).item() == pytest.approx(-7.0, rel=1e-5)


def test_it_minimises_penalty_plus_distance(surface):
    """min_x |x - c|^2 + w |x - x0|^2 has the closed form (c + w x0) / (1 + w)."""
    for weight, wanted in ((0.0, 0.9), (1.0, (0.9 + 0.15) / 2), (3.0, (0.9 + 3 * 0.15) / 4)):
        attack = ATTACK(distance_weight=weight, target=2, early_stop=False, steps=200)
        result = attack(surface, X, Y, Threat("linf", 1.0))
        torch.testing.assert_close(result.x_adv, torch.full_like(X, wanted), atol=1e-2, rtol=0)
        assert (result.backwards == 200).all()


def test_the_ball_is_kept(surface):
    result = ATTACK(distance_weight=0.0, target=2, early_stop=False)(surface, X, Y, Threat("linf", 0.2))
    torch.testing.assert_close(result.x_adv, torch.full_like(X, 0.35))


def test_without_a_target_every_wrong_class_is_tried(surface):
    nothing_accepted = ATTACK(steps=5)(surface, X, Y, Threat("linf", 0.1), threshold=-1.0)
    assert (nothing_accepted.backwards == 2 * 5).all()
    assert not nothing_accepted.success.any()
    # class 1 is out of the detector's reach at this budget only with the distance term in the way
    found = ATTACK(distance_weight=0.0)(surface, X, Y, Threat("linf", 0.5), threshold=1e-3)
    assert found.success.all()
    assert (found.backwards < 120).all(), "stopped at the first accepted error of the first class tried"


def test_noise_owes_nothing_to_the_image(surface):
    attack = ATTACK(start="noise", distance_weight=0.0, steps=2, target=1)
    one = attack(surface, X, Y, Threat("linf", 1.0), threshold=-1.0)
    two = attack(surface, 1 - X, Y, Threat("linf", 1.0), threshold=-1.0)
    torch.testing.assert_close(one.x_adv, two.x_adv)
    assert one.x_adv.std() > 0.1
    alone = attack(surface, X[2:], Y[2:], Threat("linf", 1.0), threshold=-1.0, index=torch.tensor([2]))
    torch.testing.assert_close(alone.x_adv, one.x_adv[2:])


def test_no_budget_no_change(surface):
    assert torch.equal(ATTACK()(surface, X, Y, Threat("linf", 0.0)).x_adv, X)


@pytest.mark.parametrize("wrong", [{"start": "gray"}, {"steps": 0}, {"lr": -1.0}, {"precision": "float16"}])
def test_settings_that_cannot_be_meant(wrong):
    with pytest.raises(UserError):
        PenaltyDescent(**wrong)
