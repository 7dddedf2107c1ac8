"""DFL + PCL: what a step trains on, what it costs, and that its surfaces show what they say."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.defenses.dfl_pcl import DflPcl, PolarizedContrastive, PrototypeConformity
from robustforge.defenses.dfl_pcl.losses import polarized_contrastive_terms
from robustforge.defenses.dfl_pcl.prototype_conformity import prototype_conformity_terms
from robustforge.defenses.dfl_pcl.surfaces import closeness
from robustforge.losses.classification import margin
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat, UserError

THREAT = Threat("linf", 0.1)
ATTACK = PGD(steps=3, early_stop=False, precision="float32")
NORMED = partial(
    small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16, batch_norm=True
)


@pytest.fixture
def dfl(training):
    def call(model=NORMED, **changed):
        settings = {"attack": ATTACK, "feature_loss": PolarizedContrastive(), **changed}
        defense = DflPcl(
            model, (1, 28, 28), 10, threat=THREAT, training=training, undefended_training=training, **settings
        )
        defense.enter(defense.stages()[1])
        return defense

    return call


def crafted(defense, batch, seed):
    surface = end_to_end(defense, defense.network)
    return defense.attack(surface, batch.x, batch.y, THREAT, index=batch.index, seed=seed).x_adv


@pytest.fixture(autouse=True)
def first_epoch(monkeypatch):
    monkeypatch.setattr(DflPcl, "attack_seed", lambda _: 5)


def test_half_clean_half_attacked(dfl, batch):
    x_adv = crafted(dfl(), batch, 5)
    reference, defense = dfl(), dfl()
    output = reference.network.respond(torch.cat([batch.x, x_adv]))
    y = batch.y.repeat(2)
    expected = polarized_contrastive_terms(output.features, reference.points["centroids"].weight, y)
    terms = defense.losses(batch)
    assert set(terms) == {"clean", "adversarial", "intra", "inter", "angle"}
    clean, attacked = output.logits.chunk(2)
    assert terms["clean"].item() == pytest.approx(0.5 * F.cross_entropy(clean, batch.y).item(), rel=1e-5)
    assert terms["adversarial"].item() == pytest.approx(0.5 * F.cross_entropy(attacked, batch.y).item(), rel=1e-5)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.mean().item(), rel=1e-4)
    noted = defense._noted
    assert noted["clean_accuracy"] == (clean.argmax(1) == batch.y).float().mean()
    assert noted["feature_norm"].item() == pytest.approx(output.features.norm(dim=1).mean().item(), rel=1e-5)


def test_shares_of_the_halves_reach_the_feature_loss(dfl, batch):
    x_adv = crafted(dfl(), batch, 5)
    output = dfl().network.respond(torch.cat([batch.x, x_adv]))
    values = polarized_contrastive_terms(output.features, dfl().points["centroids"].weight, batch.y.repeat(2))
    terms = dfl(clean_weight=0.2).losses(batch)
    clean, attacked = values["intra"].chunk(2)
    assert terms["intra"].item() == pytest.approx((0.2 * clean.mean() + 0.8 * attacked.mean()).item(), rel=1e-4)


def test_clean_only_and_attacked_only(dfl, batch):
    assert set(dfl(attack=NoAttack()).losses(batch)) == {"clean", "intra", "inter", "angle"}
    assert set(dfl(clean_weight=0.0, feature_loss=None).losses(batch)) == {"adversarial"}
    passes = []
    defense = dfl(clean_weight=0.0)
    defense.network.register_forward_hook(lambda *_: None)
    defense.network.stages[0].register_forward_pre_hook(lambda m, x: passes.append((m.training, len(x[0]))))
    defense.losses(batch)
    assert passes[-1] == (True, 16)
    assert all(mode is False for mode, _ in passes[:-1])


def test_the_literal_loss_is_a_sum_and_unsigned(dfl, batch):
    defense = dfl(feature_loss=PolarizedContrastive("paper_literal"), attack=NoAttack())
    features = dfl(attack=NoAttack()).network.respond(batch.x).features
    expected = polarized_contrastive_terms(features, defense.points["centroids"].weight, batch.y, "paper_literal")
    terms = defense.losses(batch)
    for name in ("intra", "inter", "angle"):
        assert terms[name].item() == pytest.approx(expected[name].sum().item(), rel=1e-4)
        assert terms[name] > 0


def test_prototype_terms_are_weighted(dfl, batch):
    defense = dfl(feature_loss=PrototypeConformity(2.0, 0.5), attack=NoAttack(), dfl=False)
    features = dfl(attack=NoAttack(), dfl=False).network.respond(batch.x).features
    points = [defense.points[name].weight for name in ("centroids", "repelling")]
    expected = prototype_conformity_terms(features, *points, batch.y)
    terms = defense.losses(batch)
    assert terms["proximity"].item() == pytest.approx(2 * expected["proximity"].mean().item(), rel=1e-4)
    assert terms["contrast"].item() == pytest.approx(0.5 * expected["contrast"].mean().item(), rel=1e-4)
    assert defense.stages()[1].rates == {"points.centroids": 5.0, "points.repelling": 0.001}


@pytest.mark.parametrize("feature_loss", [PolarizedContrastive(), PrototypeConformity(), None], ids=str)
def test_everything_learns_and_the_attack_leaves_no_gradient(dfl, batch, feature_loss):
    defense = dfl(feature_loss=feature_loss)
    crafted(defense, batch, 1)
    assert all(p.grad is None for p in defense.parameters())
    sum(defense.losses(batch).values()).backward()
    for name, parameter in defense.named_parameters():
        if name.startswith("undefended"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()


def test_attacks_see_running_statistics_and_training_moves_them_once(dfl, batch):
    defense, modes = dfl(), []
    norm = defense.network.branches[0][1]
    norm.register_forward_pre_hook(lambda module, x: modes.append((module.training, len(x[0]))))
    defense.losses(batch)
    assert modes[-1] == (True, 32), "clean and attacked images are normalized together"
    assert [mode for mode, _ in modes[:-1]] == [False] * (len(modes) - 1)
    assert len(modes) > 3
    assert norm.num_batches_tracked == 1


def test_class_means_are_of_clean_features(dfl, batch):
    defense = dfl()
    x_adv = crafted(dfl(), batch, 5)
    features = dfl().network.respond(torch.cat([batch.x, x_adv])).features[:16]
    defense.losses(batch)
    for label in (0, 9):
        expected = features[batch.y == label].mean(0)
        torch.testing.assert_close(defense.class_means.means[-1][label], expected, rtol=1e-4, atol=1e-5)


def test_validation(dfl, batch):
    defense = dfl().eval()  # as Lightning does for validation
    found = defense.validate(batch)
    assert set(found) == {
        "accuracy", "loss", "robust_accuracy", "robust_loss", "feature_norm", "own_distance", "nearest_other_distance",
        "least_centroid_angle", "mean_centroid_angle",
    }  # fmt: skip
    assert all(value.shape == (16,) for value in found.values())
    assert (found["robust_accuracy"] <= found["accuracy"]).all()
    torch.testing.assert_close(found["loss"].mean(), F.cross_entropy(defense.network(batch.x), batch.y))
    attacked = crafted(defense, batch, defense.seed)
    torch.testing.assert_close(found["robust_loss"].mean(), F.cross_entropy(defense.network(attacked), batch.y))
    assert set(dfl(attack=NoAttack(), feature_loss=None).validate(batch)) == {"accuracy", "loss", "feature_norm"}


def test_stages(dfl, described_stages):
    plain, network = dfl().stages()
    assert (plain.name, plain.trains) == ("undefended", ("undefended",))
    assert (network.name, network.trains) == ("network", ("network", "class_means", "points"))
    assert network.best == "robust_accuracy"
    assert dfl(attack=NoAttack()).stages()[1].best == "accuracy"
    assert dfl(attack=FGSM()).stages()[1].best == "pgd_accuracy", "a single step may be overfitted"
    assert dfl(keep_best=False).stages()[1].best is None
    assert dfl(feature_loss=None).stages()[1].trains == ("network", "class_means")
    settings = [described_stages(dfl(**changed))["network"] for changed in (
        {}, {"attack": FGSM(early_stop=False)}, {"feature_loss": None}, {"dfl": False}, {"dfl_channels": 2},
        {"clean_weight": 0.2}, {"feature_loss": PolarizedContrastive("signed_raw")}, {"pool_size": 2},
    )]  # fmt: skip
    assert all(one not in settings[:k] for k, one in enumerate(settings))


def test_a_warm_start_copies_the_stages(dfl):
    defense = dfl(warm_start=True)
    stage = defense.stages()[1]
    assert stage.uses == ("undefended",)
    kernel = defense.undefended[1].weight
    assert not torch.equal(defense.network.stages[0][1].weight, kernel)
    stage.prepare()
    assert torch.equal(defense.network.stages[0][1].weight, kernel)


# ---- surfaces -------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(dfl, batch):
    """With class means of a few batches, frozen."""
    defense = dfl()
    for _ in range(3):
        defense.losses(batch)
    defense.leave()
    return defense


def test_names(dfl, ready):
    names = ["end_to_end", "logit_normalized", "centroids", "feature_matching", "multi_layer", "transfer"]
    assert list(ready.surfaces()) == names
    assert list(dfl(feature_loss=None).surfaces()) == [name for name in names if name != "centroids"]


def test_the_margin_of_distances_is_the_attack_on_the_geometry(ready, batch):
    _, value = ready.surfaces()["centroids"].evaluate(batch.x, batch.y, margin)
    apart = torch.cdist(ready.space.embed(batch.x), ready.space.anchors)
    own = apart.gather(1, batch.y[:, None]).squeeze(1)
    nearest = apart.scatter(1, batch.y[:, None], float("inf")).amin(1)
    scale = torch.pdist(ready.space.anchors).mean()
    torch.testing.assert_close(value, (own - nearest) / scale, rtol=1e-4, atol=1e-5)


def test_the_first_view_answers_as_the_system_does(ready, batch):
    logits = ready(batch.x).logits
    for name, surface in ready.surfaces().items():
        if name != "transfer":
            assert torch.equal(surface.logits(batch.x, batch.y).argmax(1), logits.argmax(1)), name
        torch.testing.assert_close(surface.system(batch.x, batch.y).logits, logits)


def test_multi_layer_has_a_view_a_depth(ready, batch):
    surface = ready.surfaces()["multi_layer"]
    views = surface.attacker_logits(batch.x, batch.y)
    assert len(views) == len(surface.weights) == 1 + 3  # normalized logits, two stages, f
    assert sum(surface.weights) == pytest.approx(2)
    torch.testing.assert_close(views[0].norm(dim=1), torch.ones(16))
    pooled = ready.network.respond(batch.x).maps[0].mean((2, 3))
    torch.testing.assert_close(views[1], closeness(pooled, ready.class_means.means[0]))


def test_normalized_logits_keep_a_gradient_where_cross_entropy_has_none(ready, batch):
    with torch.no_grad():
        y = ready(batch.x).logits.argmax(1)
        ready.network.classifier.weight.mul_(1e4)
    leaf, found = batch.x.clone().requires_grad_(True), {}
    for name in ("end_to_end", "logit_normalized"):
        _, value = ready.surfaces()[name].evaluate(leaf, y, lambda z, t: F.cross_entropy(z, t, reduction="none"))
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        found[name] = (gradient.flatten(1).abs().amax(1) > 1e-12).float().mean()
    assert found["logit_normalized"] == 1
    assert found["end_to_end"] < 0.7


def test_feature_matching_moves_features_towards_another_class(ready, batch):
    surface = ready.surfaces()["feature_matching"]
    attack = PGD(steps=10, loss="margin", early_stop=False, precision="float32")
    x_adv = attack(surface, batch.x, batch.y, THREAT).x_adv

    def lead(x):
        return margin(surface.attacker_logits(x, batch.y)[1], batch.y)

    assert (lead(x_adv) > lead(batch.x)).all()


def test_embedding_and_anchors_are_on_the_sphere_where_the_loss_is(dfl, ready, batch):
    torch.testing.assert_close(ready.space.embed(batch.x).norm(dim=1), torch.ones(16))
    torch.testing.assert_close(ready.space.anchors.norm(dim=1), torch.ones(10))
    raw = dfl(feature_loss=PolarizedContrastive("signed_raw"))
    assert raw.space.embed(batch.x).norm(dim=1).std() > 0
    assert dfl(feature_loss=None).space.anchors is None


def test_impossible_values(dfl):
    with pytest.raises(UserError, match="clean_weight is 1"):
        dfl(clean_weight=1.0)
    with pytest.raises(UserError, match="paper_literal"):
        PolarizedContrastive("unsigned")
    with pytest.raises(UserError, match="inter is -1.0: give a number of at least 0"):
        PolarizedContrastive(inter=-1.0)
    with pytest.raises(UserError, match="contrast is -1.0: give a number of at least 0"):
        PrototypeConformity(contrast=-1.0)


def test_average_is_checked_at_once(dfl):
    with pytest.raises(UserError, match="decay 2"):
        dfl(average=2.0)
