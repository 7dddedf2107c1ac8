"""Modular robust redundancy: an untouched victim, thresholds that keep their word, fusions, surfaces, stages."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from sklearn.decomposition import PCA

from robustforge.attacks.bim import BIM
from robustforge.attacks.core.session import attacking
from robustforge.attacks.pgd import PGD
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.magnet import MagNet
from robustforge.defenses.mrr import FusionSettings, InputSettings, LatentSettings, ModularRobustRedundancy
from robustforge.defenses.mrr.density import FeatureDensity
from robustforge.defenses.mrr.dictionaries import learn_dictionaries, random_patches
from robustforge.defenses.mrr.fitting import fit_densities, fit_fusion, fit_leak
from robustforge.defenses.mrr.latent import PushAway
from robustforge.defenses.mrr.losses import released_regularizer
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import CraftStage, FitStage, Training
from robustforge.types import Batch, Threat, UserError

TRAINING = Training(2, partial(torch.optim.SGD, lr=0.01), constant)
INPUT = {"enabled": True, "atoms": 12, "patches_per_image": 4, "iterations": 3, "batch": 32, "nonzeros": 3}
FUSED = {"per_class": False, "security_parameter": 0.1}


@pytest.fixture
def mrr(model):
    def call(defenders=3, fusion=None, **changes):
        latent = LatentSettings(TRAINING, **changes.pop("latent", {}))
        entry = InputSettings(**{**INPUT, **changes.pop("input", {"enabled": False})})
        return ModularRobustRedundancy(
            model,
            defenders,
            latent,
            entry,
            FusionSettings(**{**FUSED, **(fusion or {})}),
            TRAINING,
            (1, 28, 28),
            10,
            **changes,
        ).eval()

    return call


def batches(count=120, size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, size):
        index = torch.arange(start, start + size)
        y = index % 10
        x = torch.rand(size, 1, 28, 28, generator=generator) * 0.5 + 0.05 * y[:, None, None, None]
        yield Batch(x.clamp(0, 1), y, index)


def fit(defense):
    if defense.n_defenders:
        fit_densities(defense.latent, defense.defenders, 0.99, batches())
    if defense.input_settings.enabled:
        learn_dictionaries(defense.dictionaries, batches(), defense.input_settings, 0)
    fit_fusion(defense.system, defense.seed, batches(seed=1))
    return defense


def everything(seed=1):
    return torch.cat([batch.x for batch in batches(seed=seed)])


# ---- the victim -----------------------------------------------------------------------------------------------------


def test_the_victims_logits_are_its_own_bit_for_bit(mrr):
    defense = fit(mrr(input=INPUT))
    x = everything()
    with torch.no_grad():
        assert torch.equal(defense(x).logits, defense.undefended(x))
        assert torch.equal(defense(x).logits, mrr(0)(x).logits), "the victim does not depend on its defenders"
    assert mrr(0)(x).risk is None


# ---- defenders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", ["distance", "gaussian_mixture"])
def test_batched_defenders_equal_single_ones(mrr, density):
    latent = {"layers": ("penultimate", "3"), "pool": 2, "density": density}
    together = fit(mrr(3, latent=latent))
    x, label = everything()[:20], torch.arange(20) % 10
    scores = together.latent(x, label)
    assert scores.shape == (20, 6)
    for number, defender in enumerate(together.defenders):
        _, features = defender(x)
        for layer, feature in enumerate(features):
            alone = FeatureDensity(1, 10, feature.shape[1], 64, density)
            moments = alone.moments()
            for batch in batches():
                moments.add(defender(batch.x)[1][layer][None].detach(), batch.y)
            alone.fit(moments)
            expected = alone(feature[None], label)[0]
            torch.testing.assert_close(scores[:, layer * 3 + number], expected, atol=1e-4, rtol=1e-4)


def test_distance_is_that_of_scikit_learns_components():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    y = torch.arange(200) % 4
    density = FeatureDensity(1, 4, 8)
    moments = density.moments()
    for part in range(0, 200, 50):
        moments.add(features[None, part : part + 50], y[part : part + 50])
    density.fit(moments, 0.9)
    theirs = PCA(n_components=0.9, svd_solver="full").fit(features.numpy())
    assert int(density.rank) == theirs.n_components_
    z = torch.from_numpy(theirs.transform(features.numpy()))
    means = torch.stack([z[y == c].mean(0) for c in range(4)])
    label = (y + 1) % 4
    torch.testing.assert_close(
        density(features[None], label)[0], (z - means[label]).norm(dim=1).float(), atol=1e-3, rtol=1e-3
    )


def test_mixture_is_a_normal_density():
    generator = torch.Generator().manual_seed(1)
    features, y = torch.randn(400, 3, generator=generator), torch.arange(400) % 2
    density = FeatureDensity(1, 2, 3, kind="gaussian_mixture")
    moments = density.moments()
    moments.add(features[None], y)
    density.fit(moments, 1.0, shrinkage=0.0)
    mine = features[y == 1].double()
    normal = torch.distributions.MultivariateNormal(mine.mean(0), torch.cov(mine.T, correction=0))
    expected = -(normal.log_prob(features.double()) + torch.tensor(0.5).log())
    found = density(features[None], torch.ones(400, dtype=torch.int64))[0]
    torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-3)


def test_defenders_start_from_the_victim_and_learn_on_the_pushed_images(mrr, batch):
    defense = mrr(2, latent={"init": "victim"})
    stage = next(s for s in defense.stages() if s.name == "defender_2")
    assert stage.uses == ("undefended", "pushed_2")
    assert stage.adversarial_set == "pushed_2"
    stage.prepare()
    x = batch.x
    assert torch.equal(defense.defender_2(x)[0], defense.undefended(x))
    terms = stage.losses(batch)
    logits, (features,) = defense.defender_2(batch.x_adv)
    expected = released_regularizer(features, defense.defender_2.centers[0], batch.y)
    assert set(terms) == {"classification", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], 0.01 * value)
    torch.testing.assert_close(terms["classification"], torch.nn.functional.cross_entropy(logits, batch.y))
    defense.enter(stage)
    sum(stage.losses(batch).values()).backward()
    assert all(p.grad is not None for p in defense.defender_2.parameters())
    assert all(p.grad is None for p in defense.undefended.parameters())


def test_pushing_moves_away_from_the_centers(mrr, batch):
    defender = mrr(1).defender_1
    surface = defender.surface()
    before = defender.away(batch.x).risk
    result = PushAway(step=0.5)(surface, batch.x, batch.y, Threat("linf", 1.0))
    assert defender.away(result.x_adv).risk.mean() > before.mean()
    near = PushAway(step=0.02)(surface, batch.x, batch.y, Threat("linf", 1.0)).x_adv
    assert (defender.away(near).risk > before).float().mean() > 0.9
    moved = (result.x_adv - batch.x).flatten(1).norm(dim=1)
    assert (moved <= 0.5 + 1e-5).all()
    assert (moved > 0.3).all()
    # the released code's step is the gradient itself
    leaf = batch.x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(defender.away(leaf).risk.sum(), leaf)
    raw = PushAway(mode="raw", step=1.0)(surface, batch.x, batch.y, Threat("linf", 1.0))
    torch.testing.assert_close(raw.x_adv, (batch.x + gradient).clamp(0, 1), atol=1e-5, rtol=0)


def test_stages_chain_and_do_not_depend_on_how_many_follow(mrr, described_stages):
    long, short = mrr(4, input=INPUT).stages(), mrr(2, input=INPUT).stages()
    names = ["undefended", "defender_1", "pushed_2", "defender_2", "pushed_3", "defender_3", "pushed_4", "defender_4"]
    assert [stage.name for stage in long] == [*names, "densities", "dictionaries", "thresholds"]
    assert [(one.name, one.uses) for one in long[:4]] == [(two.name, two.uses) for two in short[:4]]
    more, fewer = described_stages(mrr(4, input=INPUT)), described_stages(mrr(2, input=INPUT))
    assert all(more[name] == fewer[name] for name in names[:4])
    crafted = [stage for stage in long if isinstance(stage, CraftStage)]
    assert [stage.source for stage in crafted] == [None, "pushed_2", "pushed_3"], "the push is cumulative"
    apart = [s for s in mrr(3, latent={"push": "none"}).stages() if isinstance(s, FitStage)]
    assert all(stage.adversarial_set is None for stage in apart)
    # mode and SP are no part of any stage: a trained system may be set up anew
    assert described_stages(mrr(4, {"mode": "or", "security_parameter": 0.3}, input=INPUT)) == more


def test_thresholds_may_come_from_the_training_images(mrr, described_stages):
    held, training = (
        {s.name: s for s in mrr(2, {"calibration": kind}).stages()}["thresholds"] for kind in ("held_out", "training")
    )
    assert (held.split, training.split) == ("calibration", "train")
    one, two = (described_stages(mrr(2, {"calibration": kind}))["thresholds"] for kind in ("held_out", "training"))
    assert {name for name in one if one[name] != two[name]} == {"split"}


# ---- fusion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_every_defender_flags_sp_of_its_calibration_images(mrr, rate):
    defense = fit(mrr(3, input=INPUT))
    defense.fusion.settings = replace(defense.fusion.settings, security_parameter=rate)  # on the trained system
    x = everything()
    with torch.no_grad():
        label = defense.undefended(x).argmax(1)
        flags = defense.fusion.excess(defense.system.scores(x, label), label) > 0
        assert flags.sum(0).tolist() == [int(rate * len(x))] * 4
        defense.fusion.settings = replace(defense.fusion.settings, mode="or")
        output = defense(x)
    assert torch.equal(output.risk > 0.5, flags.any(1)), "OR: above one half exactly where one flags"
    assert torch.equal(output.risk, output.detector_scores.amax(1))


@pytest.mark.parametrize("mode", ["mean_cdf", "or", "gaussian_mixture"])
def test_risks_are_ordered_shares_with_a_gradient(mrr, mode):
    defense = fit(mrr(3, {"mode": mode}, input=INPUT))
    x = everything()[:30]
    far = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(9)).round()
    with torch.no_grad():
        known, unknown = defense(x).risk, defense(far).risk
    for risk in (known, unknown):
        assert ((risk >= 0) & (risk <= 1)).all()
    assert unknown.mean() > known.mean()
    for surface in defense.surfaces().values():
        if surface.name == "victim":
            assert surface.attacker_output(x, torch.zeros(30, dtype=torch.int64)).risk is None
            continue
        leaf = far.clone().requires_grad_(True)
        answer = surface.attacker_output(leaf, torch.zeros(30, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(answer.risk.sum(), leaf)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).abs().sum(1) > 0).all(), "saturated risks still say where to go"
        if surface.name == "end_to_end":
            torch.testing.assert_close(answer.risk, unknown, atol=1e-5, rtol=0)


def test_mean_of_distribution_functions_by_hand(mrr):
    defense = fit(mrr(2))
    scores = torch.rand(7, 2)
    label = torch.zeros(7, dtype=torch.int64)
    risk, parts = defense.fusion(scores, label)
    assert parts is None
    torch.testing.assert_close(risk, defense.fusion.cdf(scores, label).mean(1))


def test_correlation_matrix_is_measured(mrr):
    defense = fit(mrr(3))
    x = everything()
    with torch.no_grad():
        scores = defense.system.judged(x)[1]
        found = defense.diagnostics(Batch(x, defense.undefended(x).argmax(1), torch.arange(len(x))))
    matrix = torch.corrcoef(scores.double().T)
    torch.testing.assert_close(defense.fusion.correlation.double(), matrix, atol=1e-4, rtol=0)
    mean = (matrix.sum() - 3) / 6
    assert float(found["score_correlation"].mean()) == pytest.approx(float(mean), abs=1e-3)
    assert float(found["flagged_by_one"].mean()) == pytest.approx(0.1, abs=1e-6)


def test_the_leaky_fusion_reads_attacked_test_images(mrr):
    leak = {"mode": "noisy_or_leaky", "leak_attacks": {"bim": BIM(steps=3)}, "leak_threat": Threat("linf", 0.3)}
    defense = fit(mrr(3, leak))
    assert defense.stages()[-1].split == "test"
    # labels that the untrained victim answers, or there is nothing that it gets right
    known = [replace(b, y=defense.undefended(b.x).argmax(1)) for b in batches(seed=2)]
    fit_leak(defense.system, defense.surfaces()["victim"], 0, known)
    assert ((defense.leak.rates >= 0) & (defense.leak.rates <= 1)).all()
    with torch.no_grad():
        x = everything()
        label = defense.undefended(x).argmax(1)
        flags = (defense.fusion.excess(defense.system.scores(x, label), label) > 0).float()
        expected = 1 - torch.stack([1 - p * flags[:, j] for j, p in enumerate(defense.leak.rates)]).prod(0)
        torch.testing.assert_close(defense(x).risk, expected)
    clean, attacked = torch.tensor([[1, 0], [0, 0.0]]), torch.tensor([[1, 1], [1, 0], [1, 0.0]])
    defense.leak.register_buffer("rates", torch.zeros(2))
    defense.leak.fit(clean, attacked)
    assert defense.leak.rates.tolist() == pytest.approx([3 / 4.001, 1 / 1.001])


# ---- surfaces and input defenders -----------------------------------------------------------------------------------


def test_white_box_raises_the_true_class_by_what_defenders_hold_against_the_other(mrr):
    defense = fit(mrr(2, penalty_weight=2.0))
    x, y = everything()[:12], torch.arange(12) % 10
    surface = defense.surfaces()["white_box"]
    with torch.no_grad():
        (view,) = surface.attacker_logits(x, y)
        victim = defense.undefended(x)
        other = victim.scatter(1, y[:, None], float("-inf")).argmax(1)
        held = defense.fusion.excess(defense.system.scores(x, other), other).clamp(min=0).sum(1)
        expected = victim.clone()
        expected[torch.arange(12), y] += 2 * held
        torch.testing.assert_close(view, expected)
        literal = mrr(2, paper_literal=True)
        literal.load_state_dict(defense.state_dict())
        answer = literal.surfaces()["white_box"].attacker_output(x, y)
        thresholds = literal.fusion.cdf.thresholds(0.1)[:, other].T
        torch.testing.assert_close(
            (answer.detector_scores - 0.5) / 0.5, literal.system.scores(x, other) - thresholds, atol=1e-5, rtol=0
        )


def test_plain_attacks_run_on_every_surface(mrr):
    defense = fit(mrr(2, input=INPUT))
    batch = next(batches(seed=3))
    before = {name: value.clone() for name, value in defense.state_dict().items()}
    for surface in defense.surfaces().values():
        result = BIM(steps=2)(surface, batch.x, batch.y, Threat("linf", 0.1), threshold=0.9)
        assert result.x_adv.shape == batch.x.shape
        with attacking(surface, batch.x, batch.y, Threat("linf", 0.1)) as session:
            gradient, _, _ = session.gradient(
                batch.x, session.everyone(), lambda logits, y: -logits.gather(1, y[:, None])[:, 0]
            )
        assert (gradient != 0).any()
    assert all(torch.equal(value, before[name]) for name, value in defense.state_dict().items())


def test_patches_are_drawn_by_sample():
    x = torch.rand(6, 2, 9, 9)
    index = torch.arange(6)
    drawn = random_patches(x, index, 4, 5, seed=0)
    assert drawn.shape == (6, 5, 32)
    assert torch.equal(drawn[3:], random_patches(x[3:], index[3:], 4, 5, seed=0))
    windows = x[0].unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).reshape(-1, 32)
    assert all(bool((windows == patch).all(1).any()) for patch in drawn[0])


def test_dictionaries_explain_their_own_class_best(mrr):
    defense = mrr(0, input={**INPUT, "atoms": 16, "iterations": 20})
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 10
    bars = torch.zeros(10, 1, 28, 28)
    for c in range(10):  # stripes of another width and direction for each class
        bars[c, 0, :, :: 2 + c // 2] = 1
        bars[c] = bars[c] if c % 2 else bars[c].mT.clone()
    x = (bars[y] + 0.05 * torch.rand(40, 1, 28, 28, generator=generator)).clamp(0, 1)
    stream = [Batch(x, y, torch.arange(40))]
    learn_dictionaries(defense.dictionaries, stream, defense.input_settings, 0)
    own = defense.dictionaries(x, y)
    other = torch.stack([defense.dictionaries(x, (y + k) % 10) for k in (1, 2, 3)]).mean(0)
    assert (own < other).float().mean() > 0.9
    with pytest.raises(UserError, match="no training image"):
        learn_dictionaries(defense.dictionaries, [Batch(x[:5], y[:5], torch.arange(5))], defense.input_settings, 0)


def test_a_victim_of_its_own_kind_is_left_alone_and_copied(mrr, model):
    robust = AdversarialLoss(PGD(steps=1, early_stop=False), Threat("linf", 0.1))
    victim = AdversarialTraining(model, robust, TRAINING, TRAINING, seed=3)
    fresh = {stage.name: stage for stage in mrr(2, victim=victim).stages()}
    assert fresh["defender_1"].uses == (), "defenders of its own architecture and weights wait for no victim"
    assert "classifier" in fresh["thresholds"].uses
    defense = fit(mrr(2, victim=victim, latent={"init": "victim"}))
    assert defense.built_on() == [victim]
    stages = {stage.name: stage for stage in defense.stages()}
    assert "undefended" not in stages, "the victim has stages of its own"
    assert stages["defender_1"].uses == ("classifier",)
    assert stages["defender_2"].uses == ("classifier", "pushed_2")
    stages["defender_1"].prepare()
    copied = defense.defender_1.checkpoints.network.state_dict()
    assert all(torch.equal(value, copied[name]) for name, value in victim.classifier.state_dict().items())
    x = everything()
    with torch.no_grad():
        assert torch.equal(defense(x).logits, victim(x).logits)
        assert defense(x).risk.shape == (len(x),)
        rows = {name: surfaces["end_to_end"].system(x, None).logits for name, surfaces in defense.systems().items()}
        # a row named like a stage stands for that stage: the plain classifier, not the victim
        assert torch.equal(rows["undefended"], victim.undefended(x))
        assert torch.equal(rows["victim"], victim.classifier(x))
    assert set(mrr(1).systems()) == {"undefended"}
    with pytest.raises(UserError, match="MagNet, whose answer takes more than one network"):
        mrr(1, victim=MagNet.__new__(MagNet))


def test_impossible_values(mrr):
    for changes, message in (
        ({"latent": {"push": "sign"}}, "normalized, raw or none"),
        ({"latent": {"density": "kde"}}, "distance or gaussian_mixture"),
        ({"defenders": -1}, "n_defenders is -1"),
        ({"input": {"score": "ssim"}}, "residual or psnr"),
        ({"input": {"nonzeros": 99}}, "more than"),
        ({"fusion": {"mode": "and"}}, "mean_cdf, or"),
        ({"fusion": {"calibration": "test"}}, "held_out or training"),
        ({"fusion": {"security_parameter": 0}}, "security_parameter is 0: give a number in .0, 1."),
        ({"fusion": {"mode": "noisy_or_leaky"}}, "leak_attacks"),
        ({"latent": {"layers": ("fc9",)}}, "no layer 'fc9'"),
    ):
        with pytest.raises(UserError, match=message):
            mrr(**changes)
    with pytest.raises(UserError, match="held-out images"):
        fit_fusion(mrr(2).system, 0, [])
