"""Centroids that are the head's rows, and TRADES in place of the attacked half's cross-entropy."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.defenses.dfl_pcl import DflPcl, PolarizedContrastive, PrototypeConformity
from robustforge.defenses.dfl_pcl.losses import polarized_contrastive_terms
from robustforge.defenses.robust_loss import trades_examples
from robustforge.losses.robust import trades_kl
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat, UserError

THREAT, ATTACK = Threat("linf", 0.1), PGD(steps=2, early_stop=False, precision="float32")
NET = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16)


@pytest.fixture
def dfl(training, monkeypatch):
    monkeypatch.setattr(DflPcl, "attack_seed", lambda _: 5)

    def call(**changed):
        settings = {"attack": ATTACK, "feature_loss": PolarizedContrastive(), **changed}
        defense = DflPcl(
            NET, (1, 28, 28), 10, threat=THREAT, training=training, undefended_training=training, **settings
        )
        defense.enter(defense.stages()[1])
        return defense

    return call


@pytest.mark.parametrize("loss", [PolarizedContrastive(), PrototypeConformity()], ids=["pcl", "prototype"])
def test_tied_centroids_are_the_heads_rows(dfl, batch, loss):
    defense = dfl(feature_loss=loss, tie_centroids=True)
    stage = defense.stages()[1]
    assert ("points" in stage.trains) is isinstance(loss, PrototypeConformity)  # which has a second set of its own
    assert "points.centroids" not in stage.rates
    assert defense.loss_points.get_parameter("centroids.weight") is defense.network.classifier.weight
    assert not any("centroids" in name for name, _ in defense.named_parameters())
    sum(defense.losses(batch).values()).backward()
    assert defense.network.classifier.weight.grad.abs().sum() > 0
    rows = defense.network.classifier.weight
    torch.testing.assert_close(defense.space.anchors, F.normalize(rows, dim=1) if defense.space.normalized else rows)


def test_free_centroids_stay_the_default(dfl):
    defense = dfl()
    assert defense.loss_points.get_parameter("centroids.weight") is defense.points["centroids"].weight
    assert "points" in defense.stages()[1].trains


def test_the_feature_loss_moves_the_head_only_where_it_is_tied(dfl, batch):
    for tied in (True, False):
        defense = dfl(tie_centroids=tied, attack=NoAttack())
        features = defense.network.respond(batch.x).features.detach()
        terms = defense.feature_loss.terms(features, defense.loss_points, batch.y, torch.ones(len(batch.y)))
        expected = polarized_contrastive_terms(features, defense.loss_points["centroids"].weight, batch.y)
        torch.testing.assert_close(terms["intra"], expected["intra"].mean())
        sum(terms.values()).backward()
        assert (defense.network.classifier.weight.grad is not None) is tied


def test_trades_replaces_the_attacked_cross_entropy(dfl, batch):
    defense, reference = dfl(trades=6.0), dfl(trades=6.0)
    x_adv = trades_examples(reference.network, batch, ATTACK, THREAT, 5)
    output = reference.network.respond(torch.cat([batch.x, x_adv]))
    clean, attacked = output.logits.chunk(2)
    terms = defense.losses(batch)
    assert set(terms) == {"clean", "divergence", "intra", "inter", "angle"}
    torch.testing.assert_close(terms["clean"], F.cross_entropy(clean, batch.y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["divergence"], 6 * trades_kl(attacked, clean).mean(), rtol=1e-3, atol=1e-5)
    assert {"clean_accuracy", "adversarial_accuracy", "adversarial_loss"} <= set(defense._noted)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tie_centroids": True, "feature_loss": None}, "tie_centroids needs a loss with centroids"),
        ({"trades": 6.0, "attack": NoAttack()}, "trades needs attacked images"),
        ({"trades": 6.0, "clean_weight": 0.2}, "leave clean_weight at 0.5"),
    ],
)
def test_what_does_not_go_together_is_refused(dfl, changed, words):
    with pytest.raises(UserError, match=words):
        dfl(**changed)
