"""Defenders with weights, widths and answers of their own."""

from functools import partial

import pytest
import torch

from robustforge.defenses.mrr import FusionSettings, InputSettings, LatentSettings, ModularRobustRedundancy
from robustforge.defenses.mrr.fitting import fit_densities, fit_fusion
from robustforge.defenses.mrr.stacked_groups import StackedGroups
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training
from robustforge.types import Batch, UserError

TRAINING = Training(2, partial(torch.optim.SGD, lr=0.01), constant)
VARIANTS = ({}, {"widths": (2, 4)}, {"widths": (6, 8)})


@pytest.fixture
def mrr(model):
    def call(defenders, seed=0, **latent):
        settings = LatentSettings(TRAINING, **latent)
        parts = defenders, settings, InputSettings(), FusionSettings(per_class=False)
        return ModularRobustRedundancy(model, *parts, TRAINING, (1, 28, 28), 10, seed=seed).eval()

    return call


@pytest.fixture
def images():
    y = torch.arange(60) % 10
    noise = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Batch((0.5 * noise + 0.05 * y[:, None, None, None]).clamp(0, 1), y, torch.arange(60))


def test_fresh_defenders_have_weights_of_their_own_and_wait_for_no_victim(mrr, described_stages):
    defense = mrr(2)
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        answers = [defense.undefended(x), defense.defender_1(x)[0], defense.defender_2(x)[0]]
    assert not any(torch.allclose(one, other) for one, other in ((answers[i], answers[i - 1]) for i in range(3)))
    stages = {stage.name: stage for stage in defense.stages()}
    assert (stages["defender_1"].uses, stages["defender_2"].uses) == ((), ("pushed_2",))
    assert stages["defender_1"].prepare is None
    assert "undefended" in stages["thresholds"].uses, "the victim's label is what they judge"
    copies = described_stages(mrr(2, init="victim"))
    assert copies["defender_1"] != described_stages(defense)["defender_1"]


def test_variants_are_taken_in_turn_and_answer_in_the_defenders_order(mrr, images, described_stages):
    defense = mrr(5, variants=VARIANTS)
    widths = [defender.checkpoints.network[1].out_channels for defender in defense.defenders]
    assert widths == [4, 2, 6, 4, 2]
    assert isinstance(defense.latent.stack, StackedGroups)
    fit_densities(defense.latent, defense.defenders, 0.99, [images])
    with torch.no_grad():
        logits, (features,) = defense.latent.stack(images.x)
        for number, defender in enumerate(defense.defenders):
            alone, (feature,) = defender(images.x)
            torch.testing.assert_close(logits[number], alone, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(features[number], feature, atol=1e-5, rtol=1e-4)
    plain, varied = described_stages(mrr(3)), described_stages(mrr(3, variants=VARIANTS))
    assert plain["defender_1"] == varied["defender_1"], "the first variant is the model itself"
    assert plain["defender_2"] != varied["defender_2"]


def test_disagreement_is_the_cross_entropy_of_the_victims_label(mrr, images):
    defense = mrr(2, disagreement=True)
    fit_densities(defense.latent, defense.defenders, 0.99, [images])
    fit_fusion(defense.system, 0, [images])
    label = defense.undefended(images.x).argmax(1)
    with torch.no_grad():
        scores = defense.system.scores(images.x, label)
        assert scores.shape == (60, 4)
        assert defense.system.count == 4
        for number, defender in enumerate(defense.defenders):
            expected = torch.nn.functional.cross_entropy(defender(images.x)[0], label, reduction="none")
            torch.testing.assert_close(scores[:, 2 + number], expected, atol=1e-5, rtol=1e-4)
        without = mrr(2)
        fit_densities(without.latent, without.defenders, 0.99, [images])
        torch.testing.assert_close(scores[:, :2], without.latent(images.x, label))
        assert defense(images.x).risk.shape == (60,)
    leaf = images.x[:5].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(defense.system.scores(leaf, label[:5])[:, 2:].sum(), leaf)
    assert gradient.abs().sum() > 0, "an attacker sees it"


def test_mistakes_in_variants_are_told(mrr):
    with pytest.raises(UserError, match="init=fresh"):
        LatentSettings(TRAINING, init="victim", variants=VARIANTS)
    with pytest.raises(UserError, match="widhts"):
        mrr(1, variants=[{"widhts": (2, 2)}])
    with pytest.raises(UserError, match="different lengths"):
        mrr(2, variants=[{}, {"hidden": 8}])
