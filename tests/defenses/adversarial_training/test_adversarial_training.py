"""Robust losses against their formulas, in float64 by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustforge.attacks.core.geometry import inside
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.robust_loss import AdversarialLoss, robust_metrics, trades_examples
from robustforge.losses.robust import trades_kl
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, Threat, UserError

ATTACK = PGD(steps=4, early_stop=False)
THREAT = Threat("linf", 0.1)


@pytest.fixture
def network(model):
    torch.manual_seed(0)
    return model()


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def numbers(network, batch, x_adv):
    """p and p_adv (B, K), and the true class's columns, in float64."""
    with torch.no_grad():
        p, q = (softmax(network(x).double().numpy()) for x in (batch.x, x_adv))
    rows, y = np.arange(len(batch.y)), batch.y.numpy()
    return p, q, p[rows, y], q[rows, y]


def crafted(network, batch, seed):
    surface = classify(network)["end_to_end"]
    return ATTACK(surface, batch.x, batch.y, THREAT, index=batch.index, seed=seed).x_adv


def test_madry(network, batch):
    _, _, p, q = numbers(network, batch, crafted(network, batch, 3))
    only = AdversarialLoss(ATTACK, THREAT).terms(network, batch, 3)
    assert set(only) == {"adversarial"}
    assert only["adversarial"].item() == pytest.approx(-np.log(q).mean(), rel=1e-5)
    mixed = AdversarialLoss(ATTACK, THREAT, clean_weight=0.3).terms(network, batch, 3)
    assert float(mixed["clean"]) == pytest.approx(-0.3 * np.log(p).mean(), rel=1e-5)
    assert float(mixed["adversarial"]) == pytest.approx(-0.7 * np.log(q).mean(), rel=1e-5)
    assert float(only["adversarial"]) > -np.log(p).mean()


def test_mart(network, batch):
    p, q, p_true, q_true = numbers(network, batch, crafted(network, batch, 3))
    others = q.copy()
    others[np.arange(len(q)), batch.y.numpy()] = 0
    boosted = -np.log(q_true) - np.log(1 - others.max(1))
    kl = (p * np.log(p / q)).sum(1)
    terms = AdversarialLoss(ATTACK, THREAT, "mart", beta=5.0).terms(network, batch, 3)
    assert set(terms) == {"mart"}
    assert float(terms["mart"]) == pytest.approx((boosted + 5 * kl * (1 - p_true)).mean(), rel=1e-4)


def test_trades(network, batch):
    x_adv = trades_examples(network, batch, ATTACK, THREAT, 3)
    p, q, p_true, _ = numbers(network, batch, x_adv)
    terms = AdversarialLoss(ATTACK, THREAT, "trades", beta=6.0).terms(network, batch, 3)
    assert float(terms["clean"]) == pytest.approx(-np.log(p_true).mean(), rel=1e-5)
    assert float(terms["divergence"]) == pytest.approx(6 * (p * np.log(p / q)).sum(1).mean(), rel=1e-3)


@pytest.mark.parametrize("threat", [THREAT, Threat("l2", 1.0)], ids=str)
def test_trades_examples_diverge_within_the_ball(network, batch, threat):
    x_adv = trades_examples(network, batch, replace(ATTACK, precision="float32"), threat, 3)
    assert inside(x_adv, batch.x, threat).all()
    noise = SampleRandom(3, "trades").normal(batch.index, (1, 28, 28))
    with torch.no_grad():
        clean = network(batch.x)
        reached, start = trades_kl(network(x_adv), clean), trades_kl(network(batch.x + 1e-3 * noise), clean)
        against_labels = trades_kl(network(crafted(network, batch, 3)), clean).mean() if threat == THREAT else 0
    assert (reached > 10 * start).all()
    assert reached.mean() > against_labels
    assert not x_adv.requires_grad
    again = trades_examples(network, batch, replace(ATTACK, precision="float32"), threat, 3)
    assert torch.equal(x_adv, again)
    assert not torch.equal(x_adv, trades_examples(network, batch, replace(ATTACK, precision="float32"), threat, 4))


def test_trades_takes_the_attacks_steps(network, batch):
    passes = []
    network.register_forward_pre_hook(lambda *_: passes.append(network.training))
    for attack, steps in ((PGD(steps=3), 3), (PGD(steps=7), 7), (FGSM(), 10)):
        passes.clear()
        trades_examples(network, batch, attack, THREAT, 0)
        assert passes == [False] * (steps + 1)
    tiny = trades_examples(network, batch, PGD(steps=2, step_size=0.01), THREAT, 0)
    assert (tiny - batch.x).abs().max() < 0.03


@pytest.mark.parametrize("loss", ["madry", "trades", "mart"])
@pytest.mark.parametrize("clean_weight", [0.0, 0.5])
def test_attacks_see_frozen_statistics_and_training_moves_them_once(batch, loss, clean_weight):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)).train()
    modes = []
    network[1].register_forward_pre_hook(lambda module, _: modes.append(module.training))
    terms = AdversarialLoss(ATTACK, THREAT, loss, clean_weight).terms(network, batch, 0)
    assert modes[-1] is True
    assert sum(modes) == 1
    assert len(modes) > 4
    assert network[1].num_batches_tracked == 1
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in network.named_parameters() if n != "0.bias")


def test_impossible_values():
    with pytest.raises(UserError, match="madry, trades or mart"):
        AdversarialLoss(ATTACK, THREAT, "free")
    with pytest.raises(UserError, match="clean_weight is 1.5: give a number in .0, 1."):
        AdversarialLoss(ATTACK, THREAT, clean_weight=1.5)


def test_robust_metrics(network, batch):
    labels = network(batch.x).argmax(1)
    labels[:4] = (labels[:4] + 1) % 10
    batch = Batch(batch.x, labels, batch.index)
    with torch.no_grad():  # as Lightning validates
        metrics = robust_metrics(network, batch, AdversarialLoss(PGD(steps=10), Threat("linf", 0.05)), 0)
    assert metrics["accuracy"].tolist() == [0] * 4 + [1] * 12
    fell = PGD(steps=10)(classify(network)["end_to_end"], batch.x, labels, Threat("linf", 0.05), index=batch.index)
    assert metrics["robust_accuracy"].tolist() == (~fell.success).float().tolist()
    assert 0 < metrics["robust_accuracy"].sum() < 12
    assert robust_metrics(network, batch, AdversarialLoss(PGD(), Threat("linf", 0)), 0)["robust_accuracy"].sum() == 12


@pytest.mark.parametrize("warm", [True, False])
def test_stages(model, training, batch, warm):
    defense = AdversarialTraining(model, AdversarialLoss(ATTACK, THREAT), training, training, warm)
    plain, robust = defense.stages()
    assert (plain.name, plain.trains, plain.uses) == ("undefended", ("undefended",), ())
    assert (robust.name, robust.trains, robust.uses) == ("classifier", ("classifier",), ("undefended",) if warm else ())
    assert (plain.best, robust.best) == (None, "robust_accuracy")
    assert set(defense.systems()) == {"undefended"}
    assert torch.equal(defense(batch.x).logits, defense.classifier(batch.x))
    different = [
        not torch.equal(a, b)
        for a, b in zip(defense.classifier.parameters(), defense.undefended.parameters(), strict=True)
    ]
    assert any(different)
    if warm:
        robust.prepare()
        for a, b in zip(defense.classifier.parameters(), defense.undefended.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a is not b
    for stage in (plain, robust):
        defense.enter(stage)
        sum(stage.losses(batch).values()).backward()
        with_gradient = {name.split(".")[0] for name, p in defense.named_parameters() if p.grad is not None}
        assert with_gradient == {stage.name}
        assert set(stage.validate(batch)) >= {"accuracy"}
        defense.zero_grad()


def test_the_last_epoch_is_kept_where_that_is_wanted(model, training):
    defense = AdversarialTraining(model, AdversarialLoss(ATTACK, THREAT), training, training, keep_best=False)
    assert defense.stages()[1].best is None


def test_an_epoch_that_has_overfitted_a_single_step_is_not_the_best(model, training):
    for loss in (AdversarialLoss(FGSM(), THREAT), AdversarialLoss(ATTACK, THREAT, examples="fast")):
        assert AdversarialTraining(model, loss, training, training).stages()[1].best == "pgd_accuracy"
