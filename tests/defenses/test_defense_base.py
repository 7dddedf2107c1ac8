"""What the base class gives a defense of ten lines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.defenses.base import Defense
from robustforge.defenses.none import PlainClassifier
from robustforge.types import Batch, DefenseOutput, Threat


class Ten(Defense):
    def __init__(self, seed=0, training=None):
        super().__init__(seed=seed, training=training)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return DefenseOutput(self.head(self.body(x)), risk=x.flatten(1).mean(1))

    def losses(self, batch):
        return {"cross_entropy": F.cross_entropy(self(batch.x).logits, batch.y)}


class OtherTen(Ten):
    pass


def test_default_stage(training, batch):
    defense = Ten(training=training)
    (stage,) = defense.stages()
    assert (stage.trains, stage.uses, stage.training) == (("body", "head"), (), training)
    with pytest.raises(RuntimeError, match="No stage is active"):
        _ = defense.active_stage
    defense.enter(stage)
    assert defense.active_stage is stage
    assert defense.body[2].training
    assert not defense.training  # only what the stage trains
    assert all(p.requires_grad for p in defense.parameters())
    sum(stage.losses(batch).values()).backward()
    defense.leave()
    assert defense.stage is None
    assert not any(m.training for m in defense.modules())
    assert not any(p.requires_grad for p in defense.parameters())
    right = defense(batch.x).logits.argmax(1) == batch.y
    assert torch.equal(stage.validate(batch)["accuracy"], right.float())


def test_default_stages_of_different_classes_are_kept_apart(training):
    # or the store would hand one defense the other's weights
    stages = [kind(training=training).stages()[0] for kind in (Ten, OtherTen)]
    assert stages[0].settings != stages[1].settings
    assert stages[0].settings == Ten(seed=3, training=training).stages()[0].settings


def test_default_surface(training, batch):
    defense = Ten(training=training)
    (surface,) = defense.surfaces().values()
    assert surface.name == "end_to_end"
    assert defense.systems() == {}
    assert defense.diagnostics(batch) == {}
    result = FGSM()(surface, batch.x, batch.y, Threat("linf", 0.1))
    defense.eval()
    assert torch.equal(result.success, defense(result.x_adv).logits.argmax(1) != batch.y)
    threshold = float(batch.x.flatten(1).mean(1).median())
    strict = FGSM()(surface, batch.x, batch.y, Threat("linf", 0.1), threshold=threshold)
    assert 0 < strict.success.sum() < result.success.sum()


def test_what_a_subclass_forgot_is_said(training, batch):
    bare = Defense(training=training)
    with pytest.raises(NotImplementedError, match=r"Defense must define forward"):
        bare(batch.x)
    with pytest.raises(NotImplementedError, match=r"losses\(batch\) or stages\(\)"):
        bare.losses(batch)
    with pytest.raises(ValueError, match="Ten was given no training settings"):
        Ten().stages()


def test_attack_seeds_differ_by_epoch_stage_and_run(training, monkeypatch):
    seeds = set()
    for seed in (0, 1):
        defense = Ten(seed, training)
        defense.enter(defense.stages()[0])
        for epoch in (0, 1):
            monkeypatch.setattr(Ten, "current_epoch", property(lambda _, epoch=epoch: epoch))
            assert defense.attack_seed() == defense.attack_seed()
            seeds.add(defense.attack_seed())
    assert len(seeds) == 4


def test_epochs_are_reseeded(training, monkeypatch):
    defense = Ten(training=training)
    defense.enter(defense.stages()[0])
    draws = []
    for epoch in (0, 1, 0):
        monkeypatch.setattr(Ten, "current_epoch", property(lambda _, epoch=epoch: epoch))
        torch.rand(epoch + 3)
        defense.on_train_epoch_start()
        draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_plain_classifier(model, training, batch: Batch):
    defense = PlainClassifier(model, training, seed=2)
    (stage,) = defense.stages()
    assert (stage.name, stage.trains) == ("undefended", ("undefended",))
    expected = F.cross_entropy(defense.undefended(batch.x), batch.y)
    torch.testing.assert_close(stage.losses(batch), {"cross_entropy": expected})
    assert torch.equal(stage.validate(batch)["accuracy"], (defense(batch.x).logits.argmax(1) == batch.y).float())
