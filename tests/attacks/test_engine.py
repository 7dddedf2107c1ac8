"""What an attack leaves behind (nothing), where it may be called (anywhere), and what it refuses."""

import random

import numpy as np
import pytest
import torch
from attack_cases import AUTO
from torch import nn

from robustforge.attacks.bim import BIM
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.attacks.torchattacks import TorchAttack
from robustforge.defenses.base import classify
from robustforge.types import DefenseOutput, Threat, UserError

ATTACKS = [FGSM(), BIM(steps=2), PGD(steps=2, restarts=2), NoAttack(), TorchAttack("PGD", {"steps": 2})]
X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0])


def network():
    """In train mode, one normalization frozen by eval(), dropout, gradients and flags of every kind."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    made.train()
    made[1].eval()
    made[3].weight.requires_grad_(False)
    made[0].weight.grad = torch.full_like(made[0].weight, 7.0)
    made[7].bias.grad = torch.zeros_like(made[7].bias)
    return made


def state(made):
    parameters = {k: (p.requires_grad, None if p.grad is None else p.grad.clone()) for k, p in made.named_parameters()}
    tensors = {k: v.clone() for k, v in made.state_dict().items()}
    modes = [m.training for m in made.modules()]
    return parameters, tensors, modes, torch.get_rng_state(), np.random.get_state(), random.getstate()


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(i, j) for i, j in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_caller_finds_everything_as_it_was(attack):
    made = network()
    before = state(made)
    attack(classify(made)["end_to_end"], X, Y, Threat("linf", 0.2))
    assert same(state(made), before)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("where", ["system", "views"])
def test_also_when_the_attack_raises(attack, where):
    made = network()
    calls = []

    def fail(name, x):
        calls.append(name)
        assert not any(m.training for m in made.modules())
        assert not any(p.requires_grad for p in made.parameters())
        if name == where:
            raise OSError("the network is gone")
        return made(x)

    surface = Surface("s", lambda x, _: (fail("views", x),), lambda x, _: DefenseOutput(fail("system", x)), made)
    before = state(made)
    if isinstance(attack, NoAttack) and where == "views":
        attack(surface, X, Y, Threat("linf", 0.2))  # which never asks for a gradient
    else:
        # labels that the network gets right, or there is nothing left to attack
        y = made.eval()(X).argmax(1)
        made.train()[1].eval()
        with pytest.raises(OSError, match="gone"):
            attack(surface, X, y, Threat("linf", 0.2))
        assert where in calls
    assert same(state(made), before)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_works_where_gradients_are_off(attack, context):
    made = network()
    surface = classify(made)["end_to_end"]
    expected = attack(surface, X, Y, Threat("linf", 0.2))
    with context():
        assert not torch.is_grad_enabled()
        result = attack(surface, X.clone(), Y.clone(), Threat("linf", 0.2))
        assert not torch.is_grad_enabled()
    assert torch.equal(result.x_adv, expected.x_adv)
    assert torch.equal(result.success, expected.success)


def test_no_weight_gradient_is_computed_or_kept():
    made = network()
    seen = []
    surface = Surface(
        "s", lambda x, _: (seen.append([p.requires_grad for p in made.parameters()]) or made(x),),
        lambda x, _: DefenseOutput(made(x)), made,
    )  # fmt: skip
    result = PGD(steps=2, early_stop=False)(surface, X, Y, Threat("linf", 0.2))
    assert len(seen) == 2
    assert not any(map(any, seen))
    assert not result.x_adv.requires_grad


@pytest.mark.parametrize("attack", [*ATTACKS, *AUTO], ids=lambda attack: attack.name)
@pytest.mark.parametrize("kind", ["ignores the image", "zero gradient"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_constant_logits(attack, kind, norm):
    bias = nn.Linear(1, 4)

    def logits(x, _):
        constant = bias(torch.tensor([[1.0]])).expand(len(x), 4)
        constant = torch.zeros_like(constant) + torch.tensor([0.0, 2.0, 1.0, 1.0])
        return constant if kind == "ignores the image" else constant + 0 * x.flatten(1).sum(1, keepdim=True)

    if isinstance(attack, TorchAttack) and norm == "l2":
        attack = TorchAttack("PGDL2", {"steps": 2})
    surface = Surface("s", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), bias)
    result = attack(surface, X, Y, Threat(norm, 0.2))
    assert result.success.tolist() == (Y != 1).tolist()
    assert result.x_adv.isfinite().all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_refuses_what_is_not_an_image(attack):
    surface = classify(network())["end_to_end"]
    for bad in (X * 255, X - 0.5, X * 2 - 1, torch.where(X > 0.5, float("nan"), X)):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\].*inside the network"):
            attack(surface, bad, Y, Threat())
    for bad in (X[0], (X * 255).to(torch.uint8)):
        with pytest.raises(UserError, match=r"float \(B, C, H, W\)"):
            attack(surface, bad, Y, Threat())


def test_finish_catches_an_attack_that_cheats():
    surface = classify(network().eval())["end_to_end"]
    session = AttackSession(surface, X, Y, Threat("linf", 0.1), precision="float32")
    for cheat in (X + 0.2, (X + 0.2).clamp(0, 1), X * float("nan")):
        with pytest.raises(RuntimeError, match="outside its budget"):
            session.finish(cheat)
    assert torch.equal(session.finish(X).x_adv, X)
