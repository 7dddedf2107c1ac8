"""What the base class gives a defense of ten lines."""

import copy

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


class WidthTen(Ten):
    def __init__(self, width=8, *, dropout=0.0, **others):
        super().__init__(**others)


def test_what_the_default_stage_depends_on(training, described_stages):
    """Whatever the constructor takes, unless the class says otherwise: or the store would hand out other weights."""
    first = described_stages(WidthTen(training=training))
    assert first == described_stages(WidthTen(8, seed=3, training=training))
    for changed in (WidthTen(9, training=training), WidthTen(dropout=0.5, training=training)):
        assert described_stages(changed) != first

    class Careless(WidthTen):
        evaluation_only = ("dropout",)

    one, two = (described_stages(Careless(dropout=d, training=training)) for d in (0.0, 0.5))
    assert one == two
    assert one != described_stages(Careless(9, training=training))


def test_a_live_network_counts_by_its_weights(training, described_stages):
    class Wrapped(Ten):
        def __init__(self, network, **others):
            super().__init__(**others)

    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    first = described_stages(Wrapped(network, training=training))
    assert first == described_stages(Wrapped(copy.deepcopy(network), training=training))
    with torch.no_grad():
        network.bias += 1e-3
    assert first != described_stages(Wrapped(network, training=training))


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
