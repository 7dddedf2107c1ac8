"""Our attacks against torchattacks as an oracle, and torchattacks behind our interface."""

import random

import numpy as np
import pytest
import torch
import torchattacks

from robustforge.attacks.bim import BIM
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.torchattacks import TorchAttack, attack_names
from robustforge.types import Threat, UserError

PAIRS = {
    "fgsm": (FGSM(early_stop=False, precision="float32"), "linf", lambda m, eps: torchattacks.FGSM(m, eps=eps)),
    "bim": (
        BIM(steps=7, step_size=0.02, early_stop=False, precision="float32"), "linf",
        lambda m, eps: torchattacks.BIM(m, eps=eps, alpha=0.02, steps=7),
    ),
    "pgd": (
        BIM(steps=7, step_size=0.02, early_stop=False, precision="float32"), "linf",
        lambda m, eps: torchattacks.PGD(m, eps=eps, alpha=0.02, steps=7, random_start=False),
    ),
    "pgd l2": (
        BIM(steps=7, step_size=0.2, early_stop=False, precision="float32"), "l2",
        lambda m, eps: torchattacks.PGDL2(m, eps=10 * eps, alpha=0.2, steps=7, random_start=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("eps", [0.03, 0.08])
def test_parity_with_torchattacks(victim, trained, images, name, eps):
    x, y = images
    ours, norm, oracle = PAIRS[name]
    result = ours(victim, x, y, Threat(norm, eps if norm == "linf" else 10 * eps))
    theirs = oracle(trained, eps)(x.clone(), y).detach()
    # signs of gradients that are all but zero may differ
    assert ((result.x_adv - theirs).abs() < 1e-5).float().mean() > 0.998
    assert result.success.sum() >= (trained(theirs).argmax(1) != y).sum()
    assert result.success.any()


def test_names():
    names = attack_names()
    assert {"FGSM", "BIM", "PGD", "PGDL2", "CW", "DeepFool", "AutoAttack", "Square"} <= set(names)
    assert not {"Attack", "MultiAttack"} & set(names)
    assert names == sorted(names)
    assert TorchAttack("FGSM").name == "torchattacks/FGSM"
    assert TorchAttack("FGSM", name="mine").name == "mine"


def test_options_are_checked_at_construction():
    with pytest.raises(UserError, match=r"no attack 'PGDD'.*PGDL2"):
        TorchAttack("PGDD")
    with pytest.raises(UserError, match=r"torchattacks.PGD has no option stepz; it has alpha, eps"):
        TorchAttack("PGD", {"stepz": 3, "alpha": 0.1})


@pytest.mark.filterwarnings("ignore:torchattacks.")
@pytest.mark.parametrize(
    ("attack", "options", "norm", "eps"),
    [
        ("FGSM", {}, "linf", 0.08), ("PGD", {"steps": 3}, "linf", 0.08), ("PGDL2", {"steps": 3}, "l2", 0.9),
        ("CW", {"steps": 4, "lr": 0.1, "c": 10}, "l2", 0.9), ("DeepFool", {"steps": 3}, "l2", 0.9),
        ("APGD", {"steps": 3}, "linf", 0.08), ("APGD", {"steps": 3}, "l2", 0.9),
        ("Square", {"n_queries": 5}, "linf", 0.08), ("Square", {"n_queries": 5}, "l2", 0.9),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_results_are_in_the_ball_and_judged_by_the_system(victim, trained, images, attack, options, norm, eps):
    x, y = images[0][:8], images[1][:8].clone()
    y[0] = (trained(x[:1]).argmax(1) + 1) % 10  # misclassified already
    threat = Threat(norm, eps)
    result = TorchAttack(attack, options)(victim, x, y, threat)
    delta = (result.x_adv - x).flatten(1)
    assert ((delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)) <= eps + 1e-5).all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert (delta[1:] != 0).any() or attack == "Square"  # which moves only what it fools
    assert torch.equal(result.success, trained(result.x_adv).argmax(1) != y)
    assert result.success[0]
    assert torch.equal(result.x_adv[0], x[0])
    assert torch.equal(TorchAttack(attack, options)(victim, x, y, Threat(norm, 0.0)).x_adv, x)


def test_the_adapter_adds_nothing_and_takes_nothing_away(victim, trained, images):
    x, y = images
    for options in ({}, {"eps": 0.04}):
        theirs = torchattacks.FGSM(trained, eps=options.get("eps", 0.08))(x, y)
        result = TorchAttack("FGSM", options, early_stop=False)(victim, x, y, Threat("linf", 0.08))
        torch.testing.assert_close(result.x_adv, theirs)


@pytest.mark.parametrize("attack", ["CW", "DeepFool"])
def test_known_defects_are_said(victim, images, attack):
    with pytest.warns(UserWarning, match=rf"torchattacks.{attack} "):
        TorchAttack(attack, {"steps": 1})(victim, images[0][:2], images[1][:2], Threat("l2"))


def test_seeds(victim, images):
    x, y = images[0][:8], images[1][:8]
    attack = TorchAttack("PGD", {"steps": 2}, early_stop=False)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = attack(victim, x, y, Threat("linf", 0.1), seed=4).x_adv
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(attack(victim, x, y, Threat("linf", 0.1), seed=4).x_adv, first)
    assert not torch.equal(attack(victim, x, y, Threat("linf", 0.1), seed=5).x_adv, first)


def test_attacks_that_draw_from_numpy_are_seeded_and_leave_no_trace(victim, images):
    x, y = images[0][:3], images[1][:3]
    attack = TorchAttack("Pixle", {"max_iterations": 3, "restarts": 2}, early_stop=False)
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state(), random.getstate()
    first = attack(victim, x, y, Threat("linf", 1.0), seed=4).x_adv
    after = np.random.get_state(), random.getstate()
    assert np.array_equal(before[0][1], after[0][1])
    assert before[0][2:] == after[0][2:]
    assert before[1] == after[1]
    np.random.seed(1)
    random.seed(1)
    assert torch.equal(attack(victim, x, y, Threat("linf", 1.0), seed=4).x_adv, first)
