"""The random-sign control and the mixture of attacks."""

import pytest
import torch

from robustforge.attacks.core.geometry import inside
from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.mixture import Mixture
from robustforge.attacks.pgd import PGD
from robustforge.attacks.random_sign import RandomSign
from robustforge.randomness import image_key
from robustforge.types import DefenseOutput, Threat, UserError

LINF = Threat("linf", 0.3)


@pytest.fixture
def surface():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)).eval()
    return end_to_end(lambda x: DefenseOutput(network(x)), network)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 8, 8, generator=generator)
    x[:, :, :4] = 0.5
    return x, torch.arange(40) % 5, torch.arange(100, 140)


def test_every_pixel_moves_by_eps(surface, images):
    x, y, index = images
    result = RandomSign()(surface, x, y, LINF, index=index)
    moved = (result.x_adv - x)[:, :, :4]  # nothing to clip there
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.3))
    assert 0.4 < (moved > 0).float().mean() < 0.6
    expected = torch.where(result.x_adv > x, x + 0.3, x - 0.3).clamp(0, 1)
    torch.testing.assert_close(result.x_adv, expected)
    assert result.backwards.sum() == 0
    assert torch.equal(result.success, surface.system(result.x_adv, y).logits.argmax(1) != y)


def test_it_depends_on_sample_and_seed_only(surface, images):
    x, y, index = images
    whole = RandomSign()(surface, x, y, LINF, index=index, seed=3).x_adv
    order = torch.randperm(40)
    parts = [RandomSign()(surface, x[o], y[o], LINF, index=index[o], seed=3).x_adv for o in order.split(7)]
    assert torch.equal(torch.cat(parts), whole[order])
    assert not torch.equal(whole, RandomSign()(surface, x, y, LINF, index=index, seed=4).x_adv)
    far = RandomSign()(surface, x, y, Threat("l2", 1.0), index=index).x_adv
    assert inside(far, x, Threat("l2", 1.0)).all()
    assert (far - x).flatten(1).norm(dim=1).min() > 0.7  # clipping takes a little


def test_a_mixture_is_its_parts(surface, images):
    x, y, index = images
    attacks = {"weak": FGSM(early_stop=False), "strong": PGD(steps=3, early_stop=False)}
    budgets = {"weak": Threat("linf", 0.05), "strong": Threat("linf", 0.2)}
    result = Mixture(attacks, budgets)(surface, x, y, budgets["strong"], index=index, seed=1)
    apart = {k: attacks[k](surface, x, y, budgets[k], index=index, seed=1) for k in attacks}
    weak = (result.x_adv - x).flatten(1).abs().amax(1) <= 0.05 + 1e-6
    assert 8 < weak.sum() < 32
    for label, rows in (("weak", weak), ("strong", ~weak)):
        torch.testing.assert_close(result.x_adv[rows], apart[label].x_adv[rows])
        assert torch.equal(result.success[rows], apart[label].success[rows])
        assert torch.equal(result.backwards[rows], apart[label].backwards[rows])
    part = Mixture(attacks, budgets)(surface, x[5:9], y[5:9], budgets["strong"], index=index[5:9], seed=1)
    torch.testing.assert_close(part.x_adv, result.x_adv[5:9])


def test_a_mixture_needs_a_budget_for_each():
    with pytest.raises(UserError, match="a budget for each"):
        Mixture({"one": FGSM()}, {})


def test_image_keys_are_of_pixels():
    x = torch.rand(6, 3, 5, 5)
    keys = image_key(x)
    assert len(set(keys.tolist())) == 6
    assert torch.equal(image_key(x[[4, 1]]), keys[[4, 1]])
    assert torch.equal(image_key(x.to(memory_format=torch.channels_last)), keys)
    other = x.clone()
    other[0, 0, 0, 0] += 1e-6
    swapped = x.flip(-1)
    assert image_key(other)[0] != keys[0]
    assert not (image_key(swapped) == keys).any()
    assert torch.equal(image_key(torch.zeros(1, 1, 2, 2)), image_key(-torch.zeros(1, 1, 2, 2)))
