"""Single-step and free examples, aligned gradients and perturbed weights, against loops and formulas written out here."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.core.geometry import inside, random_start
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.data.resident import ResidentLoader, Split
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.dynamic import DynamicTraining
from robustforge.defenses.regularizers import gradient_misalignment, worst_weights
from robustforge.defenses.robust_loss import AdversarialLoss, robust_metrics
from robustforge.randomness import SampleRandom
from robustforge.types import Threat, UserError

ATTACK = PGD(steps=4, early_stop=False)
THREAT = Threat("linf", 0.1)


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    monkeypatch.setattr("robustforge.attacks.core.session.fast_bf16", lambda _: False)


@pytest.fixture
def network(model):
    torch.manual_seed(0)
    return model()


@pytest.fixture
def normalized():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)).train()


def input_gradient(network, x, y):
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)[0]


@pytest.mark.parametrize(("name", "noise", "step"), [("fast", 1.0, 1.25), ("n_fgsm", 2.0, 1.0)])
def test_one_step_from_a_random_start(network, batch, name, noise, step):
    start = random_start(batch.x, batch.index, Threat("linf", noise * 0.1), SampleRandom(3, name))
    moved = start + step * 0.1 * input_gradient(network.eval(), start, batch.y).sign()
    expected = moved.clamp(batch.x - 0.1, batch.x + 0.1) if name == "fast" else moved
    robust = AdversarialLoss(ATTACK, THREAT, examples=name)
    x_adv = robust.attacked(network.train(), batch, 3)
    torch.testing.assert_close(x_adv, expected.clamp(0, 1), atol=1e-6, rtol=0)
    assert inside(x_adv, batch.x, THREAT).all() == (name == "fast")
    terms = robust.terms(network, batch, 3)
    assert float(terms["adversarial"].detach()) == pytest.approx(
        float(F.cross_entropy(network(x_adv), batch.y)), rel=1e-5
    )
    assert not torch.equal(x_adv, robust.attacked(network, batch, 4))


def test_one_step_costs_one_pass_and_no_judgment(network, batch):
    passes = []
    network.register_forward_pre_hook(lambda *_: passes.append(1))
    for robust, expected in (
        (AdversarialLoss(ATTACK, THREAT, examples="n_fgsm"), 1),
        (AdversarialLoss(FGSM(early_stop=False), THREAT), 1),
        (AdversarialLoss(ATTACK, THREAT), 4),
    ):
        passes.clear()
        robust.attacked(network, batch, 0)
        assert len(passes) == expected


def test_examples_are_the_attacks_images(network, batch):
    surface = classify(network)["end_to_end"]
    how = {"index": batch.index, "seed": 5}
    for attack in (ATTACK, FGSM(), PGD(steps=3, restarts=2)):
        judged = attack(surface, batch.x, batch.y, THREAT, **how).x_adv
        assert torch.equal(attack.examples(surface, batch.x, batch.y, THREAT, **how), judged)
    assert torch.equal(ATTACK.examples(surface, batch.x, batch.y, Threat("linf", 0), **how), batch.x)


def test_misalignment_of_a_linear_classifier(batch):
    """Its input gradient is W^T (p - onehot), here in float64."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.normal_(linear[1].weight, std=0.1)
    near = random_start(batch.x, batch.index, THREAT, SampleRandom(7, "grad_align"))
    w, b = linear[1].weight.detach().double(), linear[1].bias.detach().double()

    def gradient(x):
        p = (x.flatten(1).double() @ w.T + b).softmax(1)
        return (p - F.one_hot(batch.y, 10)) @ w

    here, there = gradient(batch.x), gradient(near)
    expected = 1 - ((here * there).sum(1) / here.norm(dim=1) / there.norm(dim=1)).mean()
    found = gradient_misalignment(linear, batch, THREAT, 7)
    assert float(found.detach()) == pytest.approx(float(expected), abs=1e-6)
    assert float(expected) > 1e-4
    found.backward()
    assert linear[1].weight.grad.abs().sum() > 0


def test_misalignment_is_added_and_leaves_the_statistics(normalized, batch):
    before = copy.deepcopy(normalized[1].state_dict())
    found = gradient_misalignment(normalized, batch, THREAT, 0)
    assert all(torch.equal(before[name], value) for name, value in normalized[1].state_dict().items())
    terms = AdversarialLoss(ATTACK, THREAT, grad_align=0.2).terms(normalized, batch, 0)
    assert float(terms["grad_align"].detach()) > 0
    assert set(terms) == {"adversarial", "grad_align"}
    assert 0 < float(found.detach()) < 2


def test_weights_move_against_the_loss(normalized, batch):
    gamma, before = 0.05, copy.deepcopy(normalized.state_dict())

    def loss(answer):
        return F.cross_entropy(answer(batch.x), batch.y)

    moved = worst_weights(normalized, loss, gamma)
    assert all(torch.equal(before[name], value) for name, value in normalized.state_dict().items())
    twin = copy.deepcopy(normalized)
    loss(twin).backward()
    by_hand = copy.deepcopy(normalized)
    with torch.no_grad():
        for name, w in by_hand.named_parameters():
            g = dict(twin.named_parameters())[name].grad
            if w.dim() > 1:
                w.add_(gamma * w.norm() / g.norm() * g)
    torch.testing.assert_close(moved(batch.x), by_hand(batch.x))
    assert loss(by_hand) > loss(twin)
    normalized.zero_grad()
    loss(moved).backward()
    by_hand.zero_grad()
    loss(by_hand).backward()
    for mine, other in zip(normalized.parameters(), by_hand.parameters(), strict=True):
        # the ascent direction is held fixed: what reaches w is the gradient at the moved weights
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["madry", "trades", "mart"])
def test_perturbed_weights_in_every_loss(normalized, batch, loss):
    terms = AdversarialLoss(ATTACK, THREAT, loss, awp=0.01).terms(normalized, batch, 0)
    plain = AdversarialLoss(ATTACK, THREAT, loss).terms(copy.deepcopy(normalized), batch, 0)
    assert terms.keys() == plain.keys()
    assert sum(terms.values()) > sum(plain.values())
    assert normalized[1].num_batches_tracked == 1
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in normalized.parameters())


def test_free_training_is_algorithm_1(model, training, batch):
    """Two batches, each shown three times, beside a loop written from the paper."""
    defense = AdversarialTraining(model, AdversarialLoss(ATTACK, THREAT), training, training, replays=3)
    twin = copy.deepcopy(defense.classifier)
    stage = defense.stages()[1]
    defense.enter(stage)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (defense.classifier, twin)]
    delta = torch.zeros_like(batch.x)
    for x in (batch.x, batch.x.flip(0)):
        for _ in range(stage.replays):
            optimizers[0].zero_grad()
            sum(stage.losses(type(batch)(x, batch.y, batch.index)).values()).backward()
            defense.on_after_backward()
            optimizers[0].step()

            leaf = (x + delta).clamp(0, 1).requires_grad_(True)
            optimizers[1].zero_grad()
            F.cross_entropy(twin(leaf), batch.y).backward()
            delta = (leaf.detach() + 0.1 * leaf.grad.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1) - x
            optimizers[1].step()
    for mine, other in zip(defense.classifier.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    defense.free.reset()
    assert torch.equal(defense.free.attack(batch.x), batch.x)


def test_free_training_shows_each_batch_several_times():
    split = Split(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.zeros(10, dtype=torch.long))
    loader = ResidentLoader(split, 4, drop_last=True, replays=3)
    shown = [(raw["batch"], raw["index"].tolist()) for raw in loader]
    assert len(loader) == 6
    assert shown == [(0, [0, 1, 2, 3])] * 3 + [(1, [4, 5, 6, 7])] * 3
    resumed = ResidentLoader(split, 4, drop_last=True, replays=3)
    resumed.load_state_dict({"done": 4})
    assert [(raw["batch"], raw["index"].tolist()) for raw in resumed] == shown[4:]


def test_what_does_not_go_together(model, training):
    with pytest.raises(UserError, match="TRADES"):
        AdversarialLoss(ATTACK, THREAT, "trades", examples="fast")
    with pytest.raises(UserError, match="L-infinity"):
        AdversarialLoss(ATTACK, Threat("l2", 1.0), examples="n_fgsm")
    with pytest.raises(UserError, match="Free adversarial training"):
        AdversarialTraining(model, AdversarialLoss(ATTACK, THREAT, awp=0.01), training, training, replays=2)
    with pytest.raises(UserError, match="awp and grad_align to 0"):
        DynamicTraining(model, AdversarialLoss(ATTACK, THREAT, awp=0.01), None, training, training)


@pytest.mark.parametrize(("changes", "single"), [({"examples": "fast"}, True), ({"attack": FGSM()}, True), ({}, False)])
def test_training_on_one_step_is_watched(network, batch, changes, single):
    robust = AdversarialLoss(**{"attack": ATTACK, "threat": THREAT, **changes})
    metrics = robust_metrics(network, batch, robust, 0)
    assert ("pgd_accuracy" in metrics) == single
    if single:
        fell = PGD(steps=10)(classify(network)["end_to_end"], batch.x, batch.y, THREAT, index=batch.index).success
        assert torch.equal(metrics["pgd_accuracy"], (~fell).float())
