"""A denoiser that goes on training against attacks through the whole system."""

from functools import partial

import pytest
import torch

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.cae import ConvAutoEncoder
from robustforge.defenses.cae.networks import Denoiser
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.types import Threat, UserError

THREAT = Threat("linf", 0.1)
ROBUST = AdversarialLoss(PGD(steps=2, early_stop=False), THREAT, clean_weight=0.5)


@pytest.fixture
def cae(model, training):
    def call(**changed):
        denoiser = partial(Denoiser, (1, 28, 28), (4, 8), 4)
        return ConvAutoEncoder(model, denoiser, {"main": FGSM(early_stop=False)}, THREAT, training, training, **changed)

    return call


def test_it_starts_from_the_denoiser_and_trains_alone(cae, training, batch, monkeypatch):
    monkeypatch.setattr(ConvAutoEncoder, "attack_seed", lambda _: 0)
    defense = cae(hardening=ROBUST, hardening_training=training)
    with torch.no_grad():
        defense.denoiser.last[0].bias.add_(0.5)
    stage = defense.stages()[-1]
    assert (stage.name, stage.trains, stage.best) == ("hardened", ("hardened",), "robust_accuracy")
    assert stage.uses == ("undefended", "denoiser")
    stage.prepare()
    assert torch.equal(defense.rebuild(batch.x, None), defense.denoiser(batch.x))
    defense.enter(stage)
    terms = stage.losses(batch)
    assert set(terms) == {"clean", "adversarial"}
    sum(terms.values()).backward()
    assert {name.split(".")[0] for name, p in defense.named_parameters() if p.grad is not None} == {"hardened"}
    assert not defense.undefended.training
    metrics = stage.validate(batch)
    assert all(metrics[name].shape == (16,) for name in ("accuracy", "robust_accuracy"))


def test_the_answer_is_the_hardened_ones(cae, training, batch):
    defense = cae(hardening=ROBUST, hardening_training=training).eval()
    with torch.no_grad():
        defense.hardened.last[0].bias.add_(0.5)
    assert torch.equal(defense(batch.x).purified, defense.hardened(batch.x))
    assert not torch.equal(defense(batch.x).purified, defense.denoiser(batch.x))


def test_it_shares_what_came_before(cae, training, described_stages):
    plain, hardened = cae(), cae(hardening=ROBUST, hardening_training=training)
    before, after = described_stages(plain), described_stages(hardened)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"hardened"}
    softer = AdversarialLoss(ROBUST.attack, THREAT, clean_weight=0.4)
    assert described_stages(cae(hardening=softer, hardening_training=training))["hardened"] != after["hardened"]


def test_a_training_is_needed(cae):
    with pytest.raises(UserError, match="give defense.hardening_training"):
        cae(hardening=ROBUST)
