"""Efficient Defenses: the noise's statistics, the loss by hand, one step of training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.defenses.base import classify
from robustforge.defenses.efficient import EfficientDefense
from robustforge.defenses.efficient.augmentation import with_noisy_copies
from robustforge.nn.bounded_relu import BoundedReLU
from robustforge.types import Threat, UserError


@pytest.fixture
def make(model, training):
    def call(**settings):
        defense = EfficientDefense(model, training, training, **settings)
        defense.leave()
        return defense

    return call


def test_noise_is_normal_of_the_stated_deviation_and_cut():
    torch.manual_seed(0)
    x, y = torch.full((50, 1, 20, 20), 0.5), torch.arange(50)
    images, labels = with_noisy_copies(x, y, 0.1, 3)
    assert torch.equal(images[:50], x)
    assert torch.equal(labels, torch.cat([y] * 4))
    noise = images[50:] - 0.5  # 60,000 draws, 5 deviations away from the cut
    assert noise.mean().abs() < 0.1 * 4 / 60_000**0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert (noise.abs() < 0.1).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert not torch.equal(images[50:100], images[100:150]), "every copy has noise of its own"
    cut, _ = with_noisy_copies(torch.zeros(50, 1, 20, 20), y, 0.3, 1)
    assert cut.min() == 0
    assert (cut[50:] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert 0.99 < with_noisy_copies(x, y, 1.0, 1)[0].max() <= 1
    assert torch.equal(with_noisy_copies(x, y, 0.1, 0)[0], x)


def test_loss_by_hand(make, batch):
    defense = make(noise_std=0.2, copies=2)
    torch.manual_seed(7)
    loss = defense.losses(batch)["cross_entropy"]
    torch.manual_seed(7)
    noise = 0.2 * torch.randn(32, 1, 28, 28)
    parts = [batch.x, (batch.x + noise[:16]).clamp(0, 1), (batch.x + noise[16:]).clamp(0, 1)]
    by_hand = [F.cross_entropy(defense.classifier(part), batch.y).item() for part in parts]
    assert loss.item() == pytest.approx(sum(by_hand) / 3, rel=1e-5)


def test_one_step_trains_the_classifier_alone(make, batch):
    defense = make()
    assert [stage.name for stage in defense.stages()] == ["undefended", "classifier"]
    stage = defense.stages()[-1]
    before = {name: value.clone() for name, value in defense.state_dict().items()}
    defense.enter(stage)
    optimizer = torch.optim.SGD([p for p in defense.parameters() if p.requires_grad], 0.1)
    torch.manual_seed(0)
    first = stage.losses(batch)["cross_entropy"]
    first.backward()
    optimizer.step()
    defense.leave()
    moved = {name.split(".")[0] for name, value in defense.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"classifier"}
    torch.manual_seed(0)
    assert defense.losses(batch)["cross_entropy"] < first


def test_parts_can_be_left_out(make, batch):
    both, plain = make(), make(limit=None, copies=0)
    for network, bounded in ((both.classifier, True), (both.undefended, False), (plain.classifier, False)):
        assert any(isinstance(module, BoundedReLU) for module in network.modules()) is bounded
        assert any(isinstance(module, nn.ReLU) for module in network.modules()) is not bounded
    expected = F.cross_entropy(plain.classifier(batch.x), batch.y)
    torch.testing.assert_close(plain.losses(batch)["cross_entropy"], expected)


def test_the_black_box_attacks_the_undefended_classifier(make, batch):
    defense = make()
    surfaces = defense.surfaces()
    assert set(surfaces) == {"end_to_end", "transfer", "bpda"}
    attack, threat = FGSM(early_stop=False), Threat("linf", 0.1)
    handed = attack(surfaces["transfer"], batch.x, batch.y, threat)
    alone = attack(classify(defense.undefended)["end_to_end"], batch.x, batch.y, threat)
    assert torch.equal(handed.x_adv, alone.x_adv)
    assert torch.equal(handed.success, defense(handed.x_adv).logits.argmax(1) != batch.y)
    assert defense.classifier_network() is defense.classifier


def test_the_adapted_surface_has_a_slope_where_every_unit_is_at_its_bound(make, batch):
    defense = make(limit=1e-4)
    gradients = {}
    for name in ("end_to_end", "bpda"):
        x = batch.x.clone().requires_grad_(True)
        surface = defense.surfaces()[name]
        logits = surface.logits(x, batch.y)
        assert torch.equal(logits, defense(batch.x).logits)
        (gradients[name],) = torch.autograd.grad(logits[:, 0].sum(), x)
    silent = {name: (gradient == 0).flatten(1).all(1).float().mean() for name, gradient in gradients.items()}
    assert silent["end_to_end"] > 0.5
    assert silent["bpda"] == 0


@pytest.mark.parametrize("settings", [{"noise_std": -0.1}, {"copies": -1}])
def test_impossible_values(make, settings):
    with pytest.raises(UserError, match="0 or more"):
        make(**settings)
    with pytest.raises(UserError, match="limit above 0"):
        make(limit=0.0)
