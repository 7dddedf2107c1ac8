"""Minimum-norm attacks beside foolbox's, adversarial-library's and ART's: no larger norms, no fewer successes."""

import pytest
import torch
from attack_cases import distance
from benchmarks._contenders import adv_lib

from robustforge.attacks.apgd import APGD
from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.ddn import DDN
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.ead import EAD
from robustforge.attacks.fab import FAB
from robustforge.attacks.fmn import FMN
from robustforge.attacks.hop_skip_jump import HopSkipJump
from robustforge.attacks.pdgd import PDGD
from robustforge.attacks.pdpgd import PDPGD
from robustforge.attacks.sigma_zero import SigmaZero
from robustforge.types import Threat

foolbox = pytest.importorskip("foolbox")
pytest.importorskip("adv_lib")
FREE = {"l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0), "l1": Threat("l1", 784.0), "l0": Threat("l0", 784)}
ORDERS = {"l2": 2, "linf": float("inf"), "l1": 1, "l0": 0}


def compare(trained, victim, images, attack, oracle, norm, count=32):
    """(our mean norm / theirs over images that both fool, our successes, theirs), on images that are right."""
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()[:count]
    x, y = images[0][right], images[1][right]
    ours = attack(victim, x, y, FREE[norm])
    theirs, _, _ = oracle(foolbox.PyTorchModel(trained, bounds=(0, 1), device="cpu"), x, y, epsilons=None)
    fooled = trained(theirs).argmax(1) != y
    both = ours.success & fooled
    assert both.sum() > len(x) // 2
    norms = [distance(z[both], x[both], norm).mean() for z in (ours.x_adv, theirs)]
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


def rivals(steps):
    """(our attack, adversarial-library's function, its settings, norm, most that our mean norm may be of theirs)."""
    return {
        "ddn": (DDN(steps=steps), "ddn", {"steps": steps, "levels": None}, "l2", 1.01),
        "pdgd": (PDGD(steps=steps), "pdgd", {"num_steps": steps}, "l2", 1.02),
        "pdpgd l1": (PDPGD(steps=steps), "pdpgd", {"norm": 1, "num_steps": steps}, "l1", 1.02),
        "pdpgd l2": (PDPGD(steps=steps), "pdpgd", {"norm": 2, "num_steps": steps}, "l2", 1.0),
        "pdpgd linf": (PDPGD(steps=steps), "pdpgd", {"norm": float("inf"), "num_steps": steps}, "linf", 1.01),
        "fmn l1": (FMN(steps=steps), "fmn", {"norm": 1, "steps": steps}, "l1", 1.02),
        "fmn l0": (FMN(steps=steps), "fmn", {"norm": 0, "steps": steps}, "l0", 1.02),
        "sigma-zero": (SigmaZero(steps=steps), "sigma_zero", {"num_steps": steps}, "l0", 1.02),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(rivals(1)))
def test_beside_adversarial_library(trained, victim, images, name):
    attack, function, settings, norm, bound = rivals(150)[name]
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()[:24]
    x, y = images[0][right], images[1][right]
    ours, theirs = attack(victim, x, y, FREE[norm]), getattr(adv_lib(), function)(trained, x, y, **settings).detach()
    fooled = trained(theirs).argmax(1) != y
    assert ours.success.all()
    assert fooled.float().mean() > 0.8
    assert (
        distance(ours.x_adv[fooled], x[fooled], norm).mean() <= bound * distance(theirs[fooled], x[fooled], norm).mean()
    )


def test_ddn_beside_foolbox(trained, victim, images):
    ratio, ours, theirs = compare(trained, victim, images, DDN(steps=100), foolbox.attacks.DDNAttack(steps=100), "l2")
    assert ratio <= 1.01
    assert ours >= theirs


def test_ead_beside_foolbox(trained, victim, images):
    settings = {"steps": 40, "initial_const": 0.1, "regularization": 1e-2, "decision_rule": "L1"}
    oracle = foolbox.attacks.EADAttack(binary_search_steps=5, **settings)
    attack = EAD(search_steps=5, steps=40, initial_c=0.1, beta=1e-2)
    ratio, ours, theirs = compare(trained, victim, images, attack, oracle, "l1", count=24)
    assert ratio <= 1.02
    assert ours >= theirs


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_fab_that_searches_on_beside_adversarial_library(trained, victim, images, norm):
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()[:16]
    x, y = images[0][right], images[1][right]
    ours = FAB(steps=20, early_stop=False)(victim, x, y, FREE[norm])
    theirs = adv_lib().fab(trained, x, y, norm=ORDERS[norm], n_iter=20)
    assert ours.success.all()
    fooled = trained(theirs).argmax(1) != y
    assert distance(ours.x_adv, x, norm)[fooled].mean() <= 1.02 * distance(theirs, x, norm)[fooled].mean()


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_apgd_in_l1_beside_adversarial_library(trained, victim, images, loss):
    (x, y), threat = images, Threat("l1", 9.0)
    ours = APGD(steps=60, loss=loss)(victim, x, y, threat).success
    settings = {"n_iter": 60, "loss_function": "ce" if loss == "cross_entropy" else "dlr", "use_large_reps": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = adv_lib().apgd(trained, x, y, eps=threat.eps, norm=1, **settings)
    fooled = trained(theirs).argmax(1) != y
    assert 0.2 * len(y) < fooled.sum() < len(y)
    assert ours.sum() >= fooled.sum() - 1
