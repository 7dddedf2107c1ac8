"""Thresholds and covariances on held-out encodings."""

import numpy as np
import pytest
import torch

from robustforge.defenses.gmvae.calibration import calibrate, fit_detector, leave_one_out, pixel_weights, upper_quantile
from robustforge.defenses.gmvae.mixture import MixtureDetector, chi2_quantile
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.defenses.gmvae.settings import DetectorSettings
from robustforge.types import Batch, UserError

VARIANCE = 1 / 3000


def gaussian(count, latent=4, classes=3, seed=0):
    """Encodings around their class means, with correlated deviations; errors (one pixel); labels."""
    generator = torch.Generator().manual_seed(seed)
    factor = 0.05 * torch.tril(torch.ones(latent, latent))
    y = torch.arange(count) % classes
    means = MixtureDetector(classes, latent, VARIANCE, 1).means
    z = means[y] + torch.randn(count, latent, generator=generator) @ factor.T
    return z, 10 + torch.randn(count, 1, generator=generator), y, factor @ factor.T


def fitted(plan, data, classes=3, spread=None):
    z, error, y = data[:3]
    detector = MixtureDetector(classes, z.shape[1], VARIANCE, error.shape[1], plan.decoder_errors)
    fit_detector(detector, z, error, y, plan, torch.full_like(z.double(), VARIANCE) if spread is None else spread)
    return detector


def test_covariance_modes():
    data = gaussian(9000)
    true = data[3]
    eye = VARIANCE * torch.eye(4)
    expected = {"fixed": eye, "empirical": true, "aggregated": true + eye}
    for mode, wanted in expected.items():
        detector = fitted(DetectorSettings(covariance=mode), data)
        for number in range(3):
            torch.testing.assert_close(detector.covariance[number], wanted, rtol=0.12, atol=4e-4)
            torch.testing.assert_close(
                detector.covariance[number] @ detector.precision[number], torch.eye(4), atol=1e-3, rtol=0
            )
    # by numpy, about the component mean and not the sample's
    z, _, y, _ = data
    delta = (z[y == 1] - torch.tensor([0.0, 1.0, 0.0, 0.0])).double().numpy()
    by_hand = delta.T @ delta / len(delta)
    np.testing.assert_allclose(fitted(DetectorSettings(covariance="empirical"), data).covariance[1], by_hand, rtol=1e-5)
    shared = fitted(DetectorSettings(shared=True), data).covariance
    torch.testing.assert_close(shared[0], shared[2])


def test_the_encoders_own_variances_are_added_class_by_class():
    """Variable entropy: the covariance of the noisy encodings holds the noise that the encoder asks for."""
    data = gaussian(900)
    y = data[2]
    generator = torch.Generator().manual_seed(4)
    spread = 0.01 * (1 + y[:, None]) * torch.rand(900, 4, generator=generator, dtype=torch.float64)
    means = torch.stack([spread[y == number].mean(0) for number in range(3)])
    fixed = fitted(DetectorSettings(covariance="fixed"), data, spread=spread).covariance
    empirical = fitted(DetectorSettings(covariance="empirical"), data, spread=spread).covariance
    aggregated = fitted(DetectorSettings(), data, spread=spread).covariance
    torch.testing.assert_close(fixed, torch.diag_embed(means).float())
    torch.testing.assert_close(aggregated, empirical + fixed)
    shared = fitted(DetectorSettings(covariance="fixed", shared=True), data, spread=spread).covariance
    torch.testing.assert_close(shared, torch.diag_embed(spread.mean(0)).float().expand(3, -1, -1))


class Labeled(torch.nn.Module):
    """Encodes a one-pixel image v near (v, 1 - v): the first class above one half, the second below."""

    def forward(self, x):
        value = x.flatten(1)
        return torch.cat([value, 1 - value], 1) + 0.02 * torch.sin(40 * value) * torch.tensor([1.0, 0.0])


@pytest.mark.parametrize(
    ("classes", "all_labels", "reads_labels"),
    [("auto", True, True), ("auto", False, False), ("given", False, True), ("predicted", True, False)],
)
def test_held_out_labels_are_read_only_where_training_had_them_all(classes, all_labels, reads_labels):
    x = torch.rand(60, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Unflatten(1, (1, 1, 1)))
    found = []
    for y in (torch.arange(60) % 2, (torch.arange(60) // 7) % 2):
        detector = MixtureDetector(2, 2, VARIANCE, 1)
        classifier = SelectiveClassifier(Labeled(), decoder, detector, 2)
        batches = [Batch(x, y, torch.arange(60))]
        calibrate(classifier, DetectorSettings(classes=classes), VARIANCE, all_labels, batches)
        found.append(torch.cat([detector.covariance.flatten(), detector.tau_encoder]))
    assert torch.equal(*found) is not reads_labels


def test_calibration_reads_the_variances_of_an_encoder_that_answers_them():
    x = torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 4))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Unflatten(1, (1, 1, 1)))
    detector = MixtureDetector(2, 2, VARIANCE, 1)
    y = torch.arange(40) % 2
    settings = DetectorSettings(covariance="fixed", shared=True)
    calibrate(SelectiveClassifier(encoder, decoder, detector, 2), settings, VARIANCE, True, [Batch(x, y, y)])
    expected = encoder(x)[:, 2:].double().exp().mean(0).float()
    torch.testing.assert_close(detector.covariance[0].diagonal(), expected)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_thresholds_reproduce_their_quantile(level):
    z, error, *_ = data = gaussian(2000)
    plan = DetectorSettings(encoder_quantile=level, decoder_rule="quantile", decoder_quantile=level)
    parts = fitted(plan, data).detector_scores(z, error)
    for column in (0, 1):
        rejected = (parts[:, column] > 1 + 1e-6).float().mean().item()
        # leave-one-out distances are a little larger than those of the fitted covariance
        assert 1 - level - (0.012 if column == 0 else 0.001) <= rejected <= 1 - level + 1e-6
    # and on images that nothing was fitted on
    fresh = fitted(plan, data).detector_scores(*gaussian(20_000, seed=7)[:2])
    assert (fresh > 1).float().mean(0).tolist() == pytest.approx([1 - level] * 2, abs=0.04)


def test_fixed_covariance_reproduces_its_quantile_exactly():
    z, error, *_ = data = gaussian(500)
    parts = fitted(DetectorSettings(covariance="fixed", encoder_quantile=0.98), data).detector_scores(z, error)
    assert (parts[:, 0] > 1 + 1e-5).sum() == 10


def test_leave_one_out_is_what_leaving_out_gives():
    z, _, y, _ = gaussian(24)
    detector = MixtureDetector(3, 4, VARIANCE, 1)
    delta = (z - detector.means[y]).double()
    scatter = torch.stack([delta[y == c].T @ delta[y == c] for c in range(3)])
    found = leave_one_out(delta, y, scatter, torch.bincount(y), VARIANCE * torch.eye(4).expand(3, -1, -1))
    for number in range(24):
        others = (y == y[number]) & (torch.arange(24) != number)
        covariance = delta[others].T @ delta[others] / others.sum() + VARIANCE * torch.eye(4)
        expected = delta[number] @ torch.linalg.inv(covariance) @ delta[number]
        assert found[number].item() == pytest.approx(expected.item(), rel=1e-6)


def test_few_images_would_reject_far_too_much_without_leaving_out():
    """Ten dimensions, forty images a class: new images must exceed the threshold about as often as promised."""
    data = gaussian(120, latent=10)
    detector = fitted(DetectorSettings(encoder_quantile=0.95), data)
    z, error, y, _ = gaussian(6000, latent=10, seed=5)
    rejected = (detector.detector_scores(z, error)[:, 0] > 1).float().mean().item()
    naive = upper_quantile(detector.mahalanobis(data[0], data[2]).double(), 0.95)
    rejected_naively = (detector.mahalanobis(z, y) > naive).float().mean().item()
    assert rejected < 0.12 < rejected_naively


def test_chi2_is_the_critical_value_of_the_squared_distance():
    data = gaussian(3000)
    detector = fitted(DetectorSettings(encoder_rule="chi2", covariance="empirical"), data)
    assert detector.tau_encoder.tolist() == pytest.approx([chi2_quantile(0.9973, 4)] * 3)
    rejected = (detector.detector_scores(*gaussian(40_000, seed=3)[:2])[:, 0] > 1).float().mean().item()
    assert rejected == pytest.approx(0.0027, abs=0.0015)


def test_decoder_threshold_by_hand():
    error = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[:, None]
    z, _, y, _ = gaussian(6)
    std = float(np.std(error.numpy()))
    detector = fitted(DetectorSettings(decoder_std=2.0), (z, error, y))
    assert detector.tau_decoder.flatten().tolist() == pytest.approx([3.5 + 2 * std] * 3)
    own = fitted(DetectorSettings(decoder_std=2.0, decoder_per_class=True), (z, error, y))
    predicted = own.nearest(z)
    for number in range(3):
        mine = error[predicted == number].numpy()
        expected = mine.mean() + 2 * mine.std() if len(mine) > 1 else 3.5 + 2 * std
        assert own.tau_decoder[number].item() == pytest.approx(expected, rel=1e-5)


def test_the_cauchy_error_knows_where_a_class_never_has_a_stroke():
    """Ten pixels: the first five vary little, the others much. The plain error cannot tell where noise was added."""
    z, _, y, _ = gaussian(3000)
    scale = torch.cat([torch.full((5,), 0.01), torch.full((5,), 0.3)])
    draw = torch.randn(3000, 10, generator=torch.Generator().manual_seed(3))
    residual = (scale * draw).square()
    detector = fitted(DetectorSettings(decoder_errors=["squared", "cauchy"], decoder_floor=0.01), (z, residual, y))
    expected = 1 / (scale.square() + 1e-4)
    torch.testing.assert_close(detector.pixel_weight, expected.expand(3, -1), rtol=0.2, atol=0)
    noise = (scale * draw[:200] + 0.1 * (scale < 0.1)).square()
    rejected = (detector.detector_scores(z[:200], noise) > 1).float().mean(0)
    assert rejected[1] < 0.1
    assert rejected[2] > 0.99
    clean = (detector.detector_scores(z, residual) > 1).float().mean(0)
    assert 0 < clean[1] < 0.03
    assert 0 < clean[2] < 0.03


def test_pixel_weights_by_hand():
    residual = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 6.0]])
    plan = DetectorSettings(decoder_floor=0.5)
    found = pixel_weights(residual, torch.tensor([0, 0, 1]), 3, plan)
    # (own sum + 10 times the overall mean) / (own number + 10): a class without images has the overall mean square
    squares = torch.tensor([[24 / 12, 20 / 12], [22 / 11, 26 / 11], [2.0, 2.0]])
    torch.testing.assert_close(found, 1 / (squares + 0.25))
    shared = pixel_weights(residual, torch.tensor([0, 0, 1]), 3, DetectorSettings(shared=True, decoder_floor=0.5))
    torch.testing.assert_close(shared, torch.full((3, 2), 1 / 2.25))


def test_too_few_images_are_refused_with_a_way_out():
    data = gaussian(12)
    with pytest.raises(UserError, match="aggregated"):
        fitted(DetectorSettings(covariance="empirical"), data)
    assert fitted(DetectorSettings(covariance="aggregated"), data).precision.isfinite().all()
    assert fitted(DetectorSettings(covariance="empirical", shared=True), data).precision.isfinite().all()
    with pytest.raises(UserError, match="held_out"):
        fitted(DetectorSettings(), tuple(part[:0] for part in data[:3]))


def test_a_class_without_held_out_images_is_no_obstacle():
    z, error, y, _ = gaussian(30)
    some = y != 2
    detector = fitted(DetectorSettings(), (z[some], error[some], y[some]))
    torch.testing.assert_close(detector.covariance[2], VARIANCE * torch.eye(4))
    assert detector.detector_scores(z, error).isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [{"covariance": "full"}, {"encoder_rule": "std"}, {"decoder_rule": "chi2"}, {"encoder_quantile": 1.0},
     {"decoder_errors": ["absolute"]}, {"decoder_errors": []}, {"decoder_floor": 0.0}],
)  # fmt: skip
def test_plans_refuse_what_they_do_not_know(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        DetectorSettings(**wrong)
