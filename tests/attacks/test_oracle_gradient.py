"""FGSM, MIM and PGD against torchattacks at the same settings."""

import pytest
import torch
import torchattacks

from robustforge.attacks.bim import BIM
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.types import Threat

EPS = 0.08


@pytest.fixture(scope="module")
def everyone(digits):
    return digits.test.images.float() / 255, digits.test.labels


def standing(network, x, y):
    return 100 * float((network(x).argmax(1) == y).float().mean())


def test_fgsm_is_the_same_attack(victim, trained, everyone):
    x, y = everyone
    ours = FGSM(early_stop=False, precision="float32")(victim, x, y, Threat("linf", EPS)).x_adv
    theirs = torchattacks.FGSM(trained, eps=EPS)(x, y).detach()
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.999  # a gradient that is all but zero may flip its sign


def test_mim_is_the_same_attack(victim, trained, everyone):
    """Theirs divides by the mean of the absolute gradient and ours by its sum: the sign of the momentum is the same."""
    x, y = everyone
    attack = BIM("mim", steps=10, step_size=EPS / 10, momentum=1.0, early_stop=False, precision="float32")
    ours = attack(victim, x, y, Threat("linf", EPS))
    theirs = torchattacks.MIFGSM(trained, eps=EPS, alpha=EPS / 10, steps=10, decay=1.0)(x, y).detach()
    assert ((ours.x_adv - theirs).abs() < 1e-4).float().mean() > 0.99
    assert standing(trained, ours.x_adv, y) <= standing(trained, theirs, y) + 0.5


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.8)])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_pgd_is_no_weaker(victim, trained, everyone, norm, eps, precision):
    x, y = everyone
    step = 2.5 * eps / 20
    ours = PGD(steps=20, step_size=step, precision=precision)(victim, x, y, Threat(norm, eps)).x_adv
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = kind(trained, eps=eps, alpha=step, steps=20, random_start=True)(x, y).detach()
    assert 5 < standing(trained, theirs, y) < 80  # else there is nothing to compare
    assert standing(trained, ours, y) <= standing(trained, theirs, y) + 0.5
