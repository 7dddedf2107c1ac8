"""Noise controls: in the ball, of the right size, and the first draw that fools."""

import pytest
import torch
from attack_cases import check_independence, check_properties, distance, linear

from robustforge.attacks.noise import Noise
from robustforge.attacks.pgd import PGD
from robustforge.types import Threat, UserError

UNIFORM, GAUSSIAN = Noise(repeats=3), Noise("gaussian_noise", kind="gaussian", repeats=3)


@pytest.mark.parametrize("attack", [UNIFORM, GAUSSIAN], ids=lambda attack: attack.name)
def test_what_every_attack_owes(attack):
    check_properties(attack)


def test_sizes():
    x = torch.full((20, 1, 20, 20), 0.5)
    surface, y = linear(torch.zeros(2, 400), torch.tensor([1.0, 0.0])), torch.zeros(20, dtype=torch.int64)
    flat = (UNIFORM(surface, x, y, Threat("linf", 0.3)).x_adv - x).flatten()
    assert float(flat.std()) == pytest.approx(0.3 / 3**0.5, rel=0.05)
    assert float(flat.mean()) == pytest.approx(0, abs=0.02)
    bell = (Noise("g", kind="gaussian", scale=0.25)(surface, x, y, Threat("linf", 0.4)).x_adv - x).flatten()
    assert float(bell.std()) == pytest.approx(0.1, rel=0.05)
    assert ((bell.abs() < 0.1).float().mean() - 0.683).abs() < 0.03
    sphere = GAUSSIAN(surface, x, y, Threat("l2", 2.0)).x_adv
    torch.testing.assert_close(distance(sphere, x, "l2"), torch.full((20,), 2.0))
    ball = distance(UNIFORM(surface, x, y, Threat("l2", 2.0)).x_adv, x, "l2")
    assert (ball <= 2).all()
    assert ball.mean() > 1.9  # a high-dimensional ball is all shell


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_the_first_draw_that_fools_is_kept_and_more_draws_fool_more(victim, images, kind):
    x, y = images
    threat = Threat("linf", 0.5)
    results = [Noise(kind=kind, repeats=repeats)(victim, x, y, threat) for repeats in (1, 2, 20)]
    falls = [int(result.success.sum()) for result in results]
    assert falls[0] <= falls[1] < falls[2]
    first = results[0].success
    assert torch.equal(results[2].x_adv[first], results[0].x_adv[first])


def test_weaker_than_gradients(victim, images):
    x, y = images
    for threat in (Threat("linf", 0.1), Threat("l2", 1.0)):
        assert UNIFORM(victim, x, y, threat).success.sum() < PGD(steps=10)(victim, x, y, threat).success.sum()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", [UNIFORM, GAUSSIAN], ids=lambda attack: attack.name)
def test_batch_size_and_order_do_not_matter(victim, images, attack, norm):
    threat = Threat(norm, 0.4 if norm == "linf" else 8.0)
    check_independence(attack, victim, images[0][:9], images[1][:9], threat)


@pytest.mark.parametrize("settings", [{"kind": "salt"}, {"repeats": 0}, {"scale": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        Noise(**settings)
