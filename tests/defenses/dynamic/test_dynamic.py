"""Dynamic training: the falling bound, and what a step trains on."""

from functools import partial

import numpy as np
import pytest
import torch

from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.defenses.dynamic import Convergence, DynamicTraining
from robustforge.defenses.dynamic.fosc_pgd import FoscPGD
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training
from robustforge.types import Threat, UserError

THREAT = Threat("linf", 0.1)
ATTACK = FoscPGD(steps=4, precision="float32")


@pytest.fixture
def dynamic(model, training):
    def call(**changed):
        settings = {"robust": AdversarialLoss(ATTACK, THREAT), "convergence": Convergence(), **changed}
        return DynamicTraining(
            model, training=settings.pop("training", training), undefended_training=training, **settings
        )

    return call


def test_the_papers_bounds():
    bound = partial(Convergence().bound, epochs=120)
    assert [bound(epoch) for epoch in (0, 50, 100, 119)] == pytest.approx([0.5, 0.25, 0, 0])
    assert Convergence(0.2, 0.5).bound(1, 4) == pytest.approx(0.1)


@pytest.mark.parametrize(("epoch", "criterion"), [(0, 0.5), (3, 0.2), (9, 0.0)])
def test_a_step_trains_on_this_epochs_examples(dynamic, batch, monkeypatch, epoch, criterion):
    defense = dynamic(training=Training(6, partial(torch.optim.SGD, lr=0.1), constant))
    _, robust = defense.stages()
    defense.enter(robust)
    monkeypatch.setattr(DynamicTraining, "current_epoch", epoch)
    terms = defense.losses(batch)
    attack = FoscPGD(steps=4, precision="float32", criterion=criterion)
    surface = classify(defense.classifier)["end_to_end"]
    x_adv = attack(surface, batch.x, batch.y, THREAT, index=batch.index, seed=defense.attack_seed()).x_adv
    with torch.no_grad():
        p = defense.classifier(x_adv).softmax(1)[torch.arange(16), batch.y]
    assert terms["adversarial"].item() == pytest.approx(-p.log().mean().item(), rel=1e-5)
    assert defense._noted["bound"].item() == pytest.approx(criterion)
    terms["adversarial"].backward()
    assert all(p.grad is not None for p in defense.classifier.parameters())


def test_weights_are_each_images_own_loss_from_the_second_epoch(dynamic, batch, monkeypatch):
    found = {}
    for epoch in (0, 1):
        for weighted in (False, True):
            defense = dynamic(weighted=weighted, convergence=Convergence(0.0))
            defense.enter(defense.stages()[1])
            monkeypatch.setattr(DynamicTraining, "current_epoch", epoch)
            monkeypatch.setattr(DynamicTraining, "attack_seed", lambda _: 1)
            found[epoch, weighted] = defense.losses(batch)["adversarial"].item()
    assert found[0, True] == pytest.approx(found[0, False])
    surface = classify(defense.classifier)["end_to_end"]
    x_adv = ATTACK(surface, batch.x, batch.y, THREAT, index=batch.index, seed=1).x_adv
    with torch.no_grad():
        loss = -defense.classifier(x_adv).log_softmax(1)[torch.arange(16), batch.y].double().numpy()
    assert found[1, False] == pytest.approx(loss.mean(), rel=1e-5)
    assert found[1, True] == pytest.approx((loss**2).mean() / loss.mean(), rel=1e-5)
    assert not np.isclose(found[1, True], found[1, False])


def test_stages(dynamic, described_stages):
    plain, robust = dynamic(average=0.9).stages()
    assert (plain.name, robust.name) == ("undefended", "classifier")
    assert (robust.best, robust.average) == ("robust_accuracy", 0.9)
    assert described_stages(dynamic())["classifier"]["arguments"]["convergence"]["largest"] == 0.5
    assert dynamic(keep_best=False).stages()[1].best is None


def test_impossible_values(dynamic):
    with pytest.raises(UserError, match="fosc_pgd"):
        dynamic(robust=AdversarialLoss(PGD(), THREAT))
    with pytest.raises(UserError, match="madry"):
        dynamic(robust=AdversarialLoss(ATTACK, THREAT, "trades"))
    with pytest.raises(UserError, match="until is 0: give a number in .0, 1."):
        Convergence(until=0)
    with pytest.raises(UserError, match="decay 1"):
        dynamic(average=1.0)
