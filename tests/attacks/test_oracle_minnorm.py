"""Minimum-norm attacks beside foolbox's: no larger norms, no fewer successes."""

import pytest
import torch

from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.fmn import FMN
from robustforge.attacks.hop_skip_jump import HopSkipJump
from robustforge.types import Threat

foolbox = pytest.importorskip("foolbox")
FREE = {"l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0)}


def compare(trained, victim, images, attack, oracle, norm, count=32):
    """(our mean norm / theirs over images that both fool, our successes, theirs), on images that are right."""
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()[:count]
    x, y = images[0][right], images[1][right]
    ours = attack(victim, x, y, FREE[norm])
    theirs, _, _ = oracle(foolbox.PyTorchModel(trained, bounds=(0, 1), device="cpu"), x, y, epsilons=None)
    fooled = trained(theirs).argmax(1) != y
    both = ours.success & fooled
    assert both.sum() > len(x) // 2
    order = float("inf") if norm == "linf" else 2
    norms = [torch.linalg.vector_norm((z - x)[both].flatten(1), order, dim=1).mean() for z in (ours.x_adv, theirs)]
    return float(norms[0] / norms[1]), int(ours.success.sum()), int(fooled.sum())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool(trained, victim, images, norm):
    kind = foolbox.attacks.L2DeepFoolAttack if norm == "l2" else foolbox.attacks.LinfDeepFoolAttack
    ratio, ours, theirs = compare(trained, victim, images, DeepFool(), kind(), norm)
    assert ratio <= 1.02
    assert ours >= theirs


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_fmn(trained, victim, images, norm):
    kind = foolbox.attacks.L2FMNAttack if norm == "l2" else foolbox.attacks.LInfFMNAttack
    ratio, ours, theirs = compare(trained, victim, images, FMN(), kind(), norm)
    assert ratio <= 1.02
    assert ours >= theirs


@pytest.mark.slow
def test_carlini_wagner(trained, victim, images):
    oracle = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=1000, stepsize=5e-3, initial_const=1e-2)
    ratio, ours, theirs = compare(trained, victim, images, CarliniWagner(), oracle, "l2", count=8)
    assert ratio <= 1.02
    assert ours >= theirs


def test_carlini_wagner_on_a_small_budget(trained, victim, images):
    oracle = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=4, steps=100, stepsize=2e-2, initial_const=1e-1)
    attack = CarliniWagner(search_steps=4, steps=100, initial_c=0.1)
    ratio, ours, theirs = compare(trained, victim, images, attack, oracle, "l2", count=12)
    assert ratio <= 1.02
    assert ours >= theirs


@pytest.mark.slow
def test_hop_skip_jump(trained, victim, images):
    # foolbox has no start for images of the class that it gives noise: hence from blended noise where there is one
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()
    probe = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    usual = trained(probe).argmax(1).mode().values
    keep = right[images[1][right] != usual]
    chosen = images[0][keep], images[1][keep]
    torch.manual_seed(0)
    oracle = foolbox.attacks.HopSkipJumpAttack(steps=8)
    ratio, ours, theirs = compare(trained, victim, chosen, HopSkipJump(steps=8), oracle, "l2", count=12)
    assert ratio <= 1.1
    assert ours >= theirs
