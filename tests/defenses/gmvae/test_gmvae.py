"""The Gaussian-mixture VAE: its answer, its stages, its second look, its labels, its surfaces."""

import pytest
import torch

from robustforge.attacks.core.surface import fooled
from robustforge.attacks.pgd import PGD
from robustforge.defenses.gmvae import DetectorSettings, GaussianMixtureVAE, LabelSettings, ReclassificationSettings
from robustforge.defenses.gmvae.figures import generate
from robustforge.defenses.gmvae.labeled import LabeledPool, choose_labeled
from robustforge.defenses.gmvae.networks import reconstruction_error
from robustforge.defenses.gmvae.reclassify import search_latents
from robustforge.defenses.gmvae.selective import reclassified
from robustforge.defenses.stages import CalibrateStage, FitStage
from robustforge.types import Batch, DefenseOutput, Threat, UserError


@pytest.fixture
def gmvae(model, training):
    """gmvae(**changes): a small one, frozen, in eval mode, with thresholds that reject some of the test's images."""

    def call(reclassification=None, labels=None, detector=None, **changes):
        made = GaussianMixtureVAE(
            model, training, training, (1, 28, 28), 10, DetectorSettings(**detector or {}),
            ReclassificationSettings(**reclassification or {}), LabelSettings(**labels or {}), width=0.125, **changes,
        ).eval().requires_grad_(False)  # fmt: skip
        made.detector.tau_decoder.fill_(80.0)
        made.detector.tau_encoder.fill_(4000.0)
        return made

    return call


def again(defense, x):
    """The answer of the system that looks again at what it rejects."""
    return reclassified(defense.classifier, defense.reclassification, x)


def test_answer(gmvae, batch):
    defense = gmvae()
    output = defense(batch.x)
    z = defense.classifier.encode(batch.x)
    assert output.detector_scores.shape == (16, 2)
    assert torch.equal(output.risk, output.detector_scores.amax(1))
    assert torch.equal(output.logits.argmax(1), torch.cdist(z, torch.eye(10)).argmin(1))
    torch.testing.assert_close(output.logits, -torch.cdist(z, torch.eye(10)).square(), atol=1e-5, rtol=1e-4)
    errors = torch.stack([((a - b) ** 2).sum() for a, b in zip(batch.x, output.purified, strict=True)])
    torch.testing.assert_close(output.detector_scores[:, 1], errors / 80)
    nearest = torch.cdist(z, torch.eye(10)).amin(1).square()
    torch.testing.assert_close(output.detector_scores[:, 0], nearest * 3000 / 4000, atol=1e-4, rtol=1e-3)


def test_one_threshold_accepts_where_all_parts_do(gmvae, batch):
    defense = gmvae()
    output = defense(batch.x)
    for threshold in output.risk.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist():
        assert torch.equal(output.risk <= threshold, (output.detector_scores <= threshold).all(1))


def test_risk_and_parts_have_gradients(gmvae, batch):
    defense = gmvae()
    for number in (0, 1):
        x = batch.x.clone().requires_grad_(True)
        surface = defense.surfaces()["end_to_end"]
        answer = surface.attacker_output or surface.system
        (gradient,) = torch.autograd.grad(answer(x, batch.y).detector_scores[:, number].sum(), x)
        assert gradient.flatten(1).norm(dim=1).gt(0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": 9}, "10 or more"), ({"variance": 0.0}, "above 0"),
        ({"variable_entropy": True, "labels": {"per_class": 3}}, "all labels"),
        ({"labels": {"per_class": 0}}, "at least 1"), ({"reclassification": {"mode": "yes"}}, "none, reject or accept"),
        ({"reclassification": {"steps": 0}}, "at least 1"),
    ],
)  # fmt: skip
def test_what_is_refused(gmvae, changes, message):
    with pytest.raises(UserError, match=message):
        gmvae(**changes)


def test_a_wider_latent_pads_its_means(gmvae, batch):
    defense = gmvae(latent=14)
    assert defense.classifier.encode(batch.x).shape == (16, 14)
    assert not defense.detector.means[:, 10:].any()
    assert defense(batch.x).logits.shape == (16, 10)


def test_alpha_grows_with_the_image(gmvae):
    assert gmvae().alpha == pytest.approx(100)
    assert gmvae(alpha=7.0).alpha == 7.0


# ---- stages ---------------------------------------------------------------------------------------------------------


def test_stages(gmvae, batch):
    defense = gmvae()
    undefended, fit, thresholds = defense.stages()
    assert [undefended.name, fit.name, thresholds.name] == ["undefended", "gmvae", "thresholds"]
    assert isinstance(fit, FitStage)
    assert fit.trains == ("encoder", "decoder")
    defense.enter(fit)
    sum(fit.losses(batch).values()).backward()
    for name, module in defense.named_children():
        grads = [p.grad is not None for p in module.parameters()]
        assert all(grads) if name in fit.trains else not any(grads)
    metrics = fit.validate(batch)
    assert all(v.shape == (16,) for v in metrics.values())
    defense.leave()
    assert isinstance(thresholds, CalibrateStage)
    before = defense.detector.tau_decoder.clone()
    thresholds.fit([batch, batch])
    assert not torch.equal(before, defense.detector.tau_decoder)
    error = reconstruction_error(batch.x, defense(batch.x).purified)
    assert defense.detector.tau_decoder[0].item() == pytest.approx(
        (error.mean() + 3 * error.std(correction=0)).item(), rel=1e-4
    )


def test_thresholds_are_a_stage_of_their_own(gmvae, described_stages):
    """Another rule makes other thresholds and the same networks."""
    one, two = described_stages(gmvae()), described_stages(gmvae(detector={"encoder_rule": "chi2"}))
    assert one["gmvae"] == two["gmvae"]
    assert one["thresholds"] != two["thresholds"]


def test_noise_has_the_constant_variance(gmvae, batch, monkeypatch):
    defense = gmvae(variance=0.04)
    seen = []
    decode = defense.decoder.forward
    monkeypatch.setattr(defense.decoder, "forward", lambda z: seen.append(z) or decode(z))
    many = Batch(batch.x.repeat(30, 1, 1, 1), batch.y.repeat(30), torch.arange(480))
    torch.manual_seed(0)
    defense.losses(many)
    noise = seen[0] - defense.classifier.encode(many.x)
    assert noise.std().item() == pytest.approx(0.2, rel=0.03)
    assert abs(noise.mean().item()) < 0.01


def test_variable_entropy_answers_its_own_variances(gmvae, batch, described_stages):
    defense = gmvae(variable_entropy=True)
    assert defense.encoder(batch.x).shape == (16, 20)
    assert defense.classifier.encode(batch.x).shape == (16, 10)
    assert set(defense.losses(batch)) == {"reconstruction", "latent"}
    assert described_stages(gmvae())["gmvae"] != described_stages(defense)["gmvae"]


# ---- semi-supervised ------------------------------------------------------------------------------------------------


def test_labeled_images_are_chosen_by_seed():
    labels = torch.arange(100) % 4
    rows = choose_labeled(labels, 5, 4, seed=0)
    assert torch.bincount(labels[rows]).tolist() == [5, 5, 5, 5]
    assert torch.equal(rows, choose_labeled(labels, 5, 4, seed=0))
    assert not torch.equal(rows, choose_labeled(labels, 5, 4, seed=1))
    with pytest.raises(UserError, match="ask for fewer"):
        choose_labeled(labels, 26, 4, seed=0)


def test_the_pool_draws_by_sample_and_epoch():
    pool = LabeledPool(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), 0)
    x, y = pool.draw(torch.arange(500), 0)
    assert torch.equal((x.flatten() * 255).round().long(), y)
    assert torch.bincount(y, minlength=10).min() > 20
    backwards = pool.draw(torch.arange(499, -1, -1), 0)[1].flip(0)
    assert torch.equal(y, backwards), "the order of the batch must not matter"
    assert not torch.equal(y, pool.draw(torch.arange(500), 1)[1])


def test_unlabeled_labels_are_not_used(gmvae, batch):
    defense = gmvae(labels={"per_class": 1})
    fit = defense.stages()[1]
    defense.enter(fit)
    defense.pool = LabeledPool((batch.x * 255).byte(), batch.y, 0)
    totals = []
    for y in (batch.y, (batch.y + 3) % 10):
        torch.manual_seed(0)
        terms = fit.losses(Batch(batch.x, y, batch.index))
        totals.append({name: value.item() for name, value in terms.items()})
    assert totals[0] == totals[1]
    assert set(totals[0]) == {"reconstruction", "latent", "unlabeled_reconstruction", "unlabeled_latent"}


# ---- reclassification -----------------------------------------------------------------------------------------------


def test_batched_search_is_as_good_as_single_ones(gmvae, batch):
    defense = gmvae()
    means, x = defense.detector.means, batch.x[:3]
    z, error = search_latents(defense.decoder, means.expand(3, -1, -1), x, 12, 0.05)
    single = [
        [search_latents(defense.decoder, means[None, c : c + 1], x[i : i + 1], 12, 0.05) for c in range(10)]
        for i in range(3)
    ]
    for i in range(3):
        errors = torch.stack([one[1][0] for one in single[i]])
        best = int(errors.argmin())
        assert error[i].item() == pytest.approx(errors[best].item(), rel=1e-5)
        torch.testing.assert_close(z[i], single[i][best][0][0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(reconstruction_error(x[i : i + 1], defense.decoder(z[i : i + 1]))[0], error[i])


def test_the_search_finds_the_latent_of_a_decoded_image(gmvae):
    defense = gmvae()
    wanted = defense.detector.means[:4] + 0.1
    x = defense.decoder(wanted)
    starts = defense.detector.means.expand(4, -1, -1)
    before = search_latents(defense.decoder, starts, x, 1, 1e-9)[1]
    after = search_latents(defense.decoder, starts, x, 60, 0.03)[1]
    assert (after < 0.05 * before).all()


@pytest.mark.parametrize("mode", ["reject", "accept"])
def test_only_rejected_inputs_are_reclassified(gmvae, batch, mode):
    defense = gmvae(reclassification={"mode": mode, "steps": 3})
    direct = defense(batch.x)
    defense.detector.tau_decoder.mul_(direct.detector_scores[:, 1].median())  # about half of the images are rejected
    direct = defense(batch.x)
    rejected = direct.risk > 1
    assert 0 < rejected.sum() < 16
    second = again(defense, batch.x)
    assert torch.equal(second.logits[~rejected], direct.logits[~rejected])
    assert (second.logits[rejected] != direct.logits[rejected]).any(1).all()
    if mode == "accept":
        assert second.risk is None
    else:
        assert torch.equal(second.detector_scores[~rejected], direct.detector_scores[~rejected])
        assert (second.detector_scores[rejected, 1] < direct.detector_scores[rejected, 1]).any()
    assert set(defense.systems()) == {"undefended", "without_thresholds", "reclassified"}


def test_the_search_works_where_gradients_are_off(gmvae, batch):
    defense = gmvae(reclassification={"mode": "accept", "steps": 2})
    defense.detector.tau_decoder.fill_(1e-3)
    expected = again(defense, batch.x).logits
    with torch.no_grad():
        assert torch.equal(again(defense, batch.x).logits, expected)
    with torch.inference_mode():
        torch.testing.assert_close(again(defense, batch.x.clone()).logits, expected)
    assert again(gmvae(reclassification={"mode": "accept"}), batch.x[:0]).logits.shape == (0, 10)


# ---- surfaces, attacks, samples -------------------------------------------------------------------------------------


def test_surfaces(gmvae, batch):
    defense = gmvae()
    surfaces = defense.surfaces()
    assert set(surfaces) == {"end_to_end", "encoder", "white_box", "aimed", "transfer"}
    encoder = surfaces["encoder"]
    torch.testing.assert_close(encoder.attacker_logits(batch.x, batch.y)[0], defense(batch.x).logits)
    assert encoder.attacker_output(batch.x, batch.y).risk is None, "the encoder's attacker knows no detector"
    assert encoder.system(batch.x, batch.y).risk is not None, "and is judged by it all the same"
    bare = defense.systems()["without_thresholds"]["end_to_end"]
    assert bare.system(batch.x, batch.y).risk is None
    wrong, _ = fooled(encoder, batch.x, batch.y, threshold=0.0)
    assert not wrong.any(), "everything is rejected"


@pytest.mark.parametrize("literal", [False, True])
def test_white_box_scores_are_equation_10(gmvae, batch, literal):
    defense = gmvae(paper_literal=literal, exponents=(2.0, 3.0))
    defense.detector.tau_encoder.copy_(torch.linspace(10, 20, 10))
    (scores,) = defense.surfaces()["white_box"].attacker_logits(batch.x, batch.y)
    z, error = defense.classifier.encode(batch.x)[0], reconstruction_error(batch.x, defense(batch.x).purified)[0]
    for target in (0, 7):
        delta = torch.eye(10)[target] - z
        scale = 1 / 3000 if literal else 3000
        distance = (delta @ delta).item() * scale / defense.detector.tau_encoder[target].item()
        penalty = (error.item() / 80) ** 2 + distance**3
        assert torch.expm1(-scores[0, target]).item() == pytest.approx(penalty, rel=1e-3)


def test_aimed_scores_are_the_targets(gmvae, batch):
    defense = gmvae()
    surface, output = defense.surfaces()["aimed"], defense(batch.x)
    predicted = output.logits.argmax(1)
    assert surface.aimed
    torch.testing.assert_close(surface.attacker_output(batch.x, predicted).detector_scores, output.detector_scores)
    other = surface.attacker_output(batch.x, (predicted + 1) % 10)
    assert (other.detector_scores[:, 0] > output.detector_scores[:, 0]).all()
    torch.testing.assert_close(other.detector_scores[:, 1], output.detector_scores[:, 1])
    torch.testing.assert_close(other.logits, output.logits)


def test_target_images_have_the_fitted_components_spread(gmvae, monkeypatch):
    defense = gmvae()
    defense.detector.covariance.copy_(torch.diag(torch.arange(1.0, 11) / 100).expand(10, -1, -1))
    seen = []
    monkeypatch.setattr(defense.decoder, "forward", lambda z: seen.append(z) or torch.zeros(len(z), 1, 28, 28))
    target = torch.full((4000,), 3)
    defense.surfaces()["aimed"].start(target, torch.arange(4000), 0)
    torch.testing.assert_close(seen[0].mean(0), torch.eye(10)[3], atol=0.02, rtol=0)
    torch.testing.assert_close(seen[0].var(0), torch.arange(1.0, 11) / 100, atol=0, rtol=0.1)
    defense.surfaces()["aimed"].start(target[:5], torch.arange(5), 1)
    assert not torch.equal(seen[1], seen[0][:5]), "another draw each restart"


def test_the_judge_takes_out_what_the_classifier_confirms(gmvae, batch):
    assert "judged" not in gmvae().surfaces()
    defense = gmvae(judge=True)
    defense.detector.tau_decoder.fill_(1e9)
    defense.detector.tau_encoder.fill_(1e9)
    surfaces = defense.surfaces()
    direct, judged = (surfaces[name].system(batch.x, batch.y) for name in ("white_box", "judged"))
    agrees = defense.undefended(batch.x).argmax(1) == direct.logits.argmax(1)
    assert torch.equal(judged.risk <= 1, ~agrees)
    assert torch.equal(judged.logits, direct.logits)


def test_an_attacker_sees_the_search_with_its_latents_held(gmvae, batch):
    defense = gmvae(reclassification={"mode": "accept", "attacked_steps": 12, "precision": "float32", "steps": 12})
    row = defense.systems()["reclassified_search"]["end_to_end"]
    x = batch.x[:2].clone().requires_grad_(True)
    (scores,) = row.attacker_logits(x, batch.y[:2])
    assert scores.shape == (2, 10)
    for number in (0, 7):
        start = defense.detector.means[None, number : number + 1]
        z, error = search_latents(defense.decoder, start, batch.x[:1], 12, 0.05)
        assert -scores[0, number].item() == pytest.approx(error.item(), rel=1e-4)
        (gradient,) = torch.autograd.grad(scores[0, number], x, retain_graph=True)
        torch.testing.assert_close(gradient[0], 2 * (defense.decoder(z)[0] - batch.x[0]), atol=1e-3, rtol=1e-3)
    assert "reclassified_search" not in gmvae(reclassification={"mode": "accept"}).systems()


def test_the_search_may_run_in_bf16(gmvae, batch):
    """On the way: what is answered is judged in float32, and no worse by much."""
    defense = gmvae()
    starts = defense.detector.means.expand(3, -1, -1)
    z, error = search_latents(defense.decoder, starts, batch.x[:3], 20, 0.05, bf16=True)
    exact = search_latents(defense.decoder, starts, batch.x[:3], 20, 0.05)[1]
    torch.testing.assert_close(error, reconstruction_error(batch.x[:3], defense.decoder(z)))
    torch.testing.assert_close(error, exact, rtol=0.02, atol=0)


def test_an_ordinary_attack_on_the_white_box_surface_has_gradients(gmvae, batch):
    result = PGD(steps=3, precision="float32")(
        gmvae().surfaces()["white_box"], batch.x, batch.y, Threat("linf", 0.1), threshold=1e-9
    )
    assert (result.trace.zero_gradient < 0.9).all()
    assert (result.trace.loss_gain >= 0).all()


def test_samples_lie_around_their_means(gmvae):
    classifier = gmvae().classifier
    labels, index = torch.tensor([3, 3, 5]), torch.arange(3)
    images = generate(classifier, 1e-8, labels, index, 0)
    torch.testing.assert_close(images, classifier.decoder(torch.eye(10)[labels]), atol=1e-3, rtol=0)
    wide = generate(classifier, 1.0, labels, index, 0)
    assert not torch.allclose(*wide[:2])
    torch.testing.assert_close(wide[1:], generate(classifier, 1.0, labels[1:], index[1:], 0))


def test_diagnostics_sum_to_one(gmvae, batch):
    figures = gmvae().diagnostics(batch)
    assert all(values.shape == (16,) for values in figures.values())
    total = figures["accepted_correct"] + figures["accepted_wrong"] + figures["rejected"]
    assert torch.equal(total, torch.ones(16))
    assert isinstance(gmvae()(batch.x), DefenseOutput)
