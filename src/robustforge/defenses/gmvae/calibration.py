"""Fits the class covariances and the two thresholds of a Gaussian-mixture VAE on held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from robustforge.defenses.gmvae.mixture import MixtureDetector, chi2_quantile
from robustforge.defenses.gmvae.networks import squared_residual
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.defenses.gmvae.settings import DetectorSettings
from robustforge.types import Batch, UserError


@torch.no_grad()
def calibrate(
    classifier: SelectiveClassifier,
    settings: DetectorSettings,
    variance: float,
    all_labels: bool,
    batches: Iterable[Batch],
) -> None:
    """Fits the detector of ``classifier`` on held-out images: see :func:`fit_detector`.

    Args:
        classifier: trained; its detector is filled in place.
        settings: the rules.
        variance: of the encoder's noise where its entropy is constant, latent units squared.
        all_labels: whether training saw all labels, for ``classes="auto"``.
        batches: of held-out images.

    Raises:
        UserError: no held-out image.
    """
    seen = []
    for batch in batches:
        z, spread = classifier.posterior(batch.x, variance)
        seen.append((z, squared_residual(batch.x, classifier.decoder(z)), batch.y, spread))
    if not seen:
        raise UserError("The thresholds of gmvae need held-out images: raise dataset.held_out.")
    z, residual, y, spread = (torch.cat(values) for values in zip(*seen, strict=True))
    given = all_labels if settings.classes == "auto" else settings.classes == "given"
    y = y if given else classifier.detector.nearest(z)
    fit_detector(classifier.detector, z, residual, y, settings, spread)


@torch.no_grad()
def fit_detector(
    detector: MixtureDetector, z: Tensor, residual: Tensor, y: Tensor, settings: DetectorSettings, spread: Tensor
) -> None:
    """Writes covariances, pixel weights and thresholds into ``detector``.

    Args:
        detector: filled in place.
        z: (N, k) encodings of held-out images, without noise.
        residual: (N, D) squared residuals of the images rebuilt from them.
        y: (N,) their labels, or the classes that stand for them.
        settings: the rules.
        spread: (N, k) float64 variances of the encoder's noise, latent units squared; a class's own is their mean.

    Raises:
        UserError: too few held-out images for the covariance that the settings asks for, or none at all.

    Notes:
        Covariances are centered on the component means (the paper's distance is to them), not on the empirical ones. An
        image takes part in the covariance that it is measured by, which makes its distance too small, by a factor of
        several where a class has few more images than the latent has dimensions. The quantile is therefore taken over
        leave-one-out distances, so that new images exceed it at the stated rate.
    """
    if not len(y):
        raise UserError("The thresholds of gmvae need held-out images: raise dataset.held_out.")
    z, means = z.double(), detector.means.double()
    scatter, counts = _scatter(z - means[y], y, len(means), settings.shared)
    noise = torch.diag_embed(_class_mean(spread, y, len(means), settings.shared))
    covariance = _covariance(scatter, counts, settings.covariance, noise)
    detector.covariance.copy_(covariance)
    detector.precision.copy_(torch.linalg.inv(covariance))
    predicted = detector.nearest(z)
    if settings.encoder_rule == "chi2":
        tau = chi2_quantile(settings.chi2_level, z.shape[1])
    else:
        distances = detector.mahalanobis(z, predicted).double()
        if settings.covariance != "fixed":
            own = predicted == y
            added = noise if settings.covariance == "aggregated" else torch.zeros_like(noise)
            distances[own] = leave_one_out((z - means[y])[own], y[own], scatter, counts, added)
        tau = upper_quantile(distances, settings.encoder_quantile)
    detector.tau_encoder.fill_(tau)
    detector.pixel_weight.copy_(pixel_weights(residual, predicted, len(means), settings))
    error = detector.errors(residual, detector.pixel_weight[predicted]).double()
    detector.tau_decoder.copy_(error_thresholds(error, settings).expand(len(means), -1))
    if settings.decoder_per_class:
        for number in range(len(means)):  # a class that too few images are assigned to keeps the global threshold
            if int((predicted == number).sum()) > 1:
                detector.tau_decoder[number] = error_thresholds(error[predicted == number], settings)


def pixel_weights(residual: Tensor, predicted: Tensor, classes: int, settings: DetectorSettings) -> Tensor:
    """Inverse squared scales of the residuals, for each class and pixel.

    Args:
        residual: (N, D) squared residuals of held-out images.
        predicted: (N,) classes that they were assigned to.
        classes: K.
        settings: its ``decoder_floor``, and ``shared`` for the same weights in all classes.

    Returns:
        (K, D) weights. A class counts the mean square over all images as 10 images of its own, so that a class with few
        images has weights too.
    """
    overall = residual.mean(0)
    if settings.shared:
        return (1 / (overall + settings.decoder_floor**2)).expand(classes, -1)
    one_hot = torch.nn.functional.one_hot(predicted, classes).to(residual.dtype)
    prior = 10.0
    squares = (one_hot.T @ residual + prior * overall) / (one_hot.sum(0)[:, None] + prior)
    return 1 / (squares + settings.decoder_floor**2)


def leave_one_out(delta: Tensor, y: Tensor, scatter: Tensor, counts: Tensor, noise: Tensor) -> Tensor:
    """Squared Mahalanobis distances, each under a covariance that was estimated without its own image.

    Args:
        delta: (N, k) deviations from the class mean.
        y: (N,) classes.
        scatter: (K, k, k) sums of the outer products of all deviations of each class, these included.
        counts: (K,) numbers of those.
        noise: (K, k, k) covariance that is added.

    Returns:
        (N,), by the Sherman-Morrison formula: one matrix inverse a class instead of one an image.
    """
    others = (counts - 1).clamp(min=1).double()
    inverse = torch.linalg.inv(scatter / others[:, None, None] + noise)
    distance = torch.einsum("bi,bij,bj->b", delta, inverse[y], delta)
    return distance / (1 - distance / others[y]).clamp(min=1e-9)


def upper_quantile(values: Tensor, level: float) -> float:
    """The smallest observed value that at least a share ``level`` of ``values`` (N,) does not exceed."""
    place = math.ceil(level * len(values) - 1e-9)  # 0.98 * 500 must not become 491
    return float(values.sort().values[max(0, place - 1)])


def error_thresholds(error: Tensor, settings: DetectorSettings) -> Tensor:
    """(S,) thresholds of the decoder for held-out errors (N, S) of S kinds."""
    if settings.decoder_rule == "quantile":
        return error.new_tensor([upper_quantile(kind, settings.decoder_quantile) for kind in error.T])
    return error.mean(0) + settings.decoder_std * error.std(0, correction=0)


def _scatter(delta: Tensor, y: Tensor, classes: int, shared: bool) -> tuple[Tensor, Tensor]:
    """((K, k, k) sums of outer products, (K,) numbers of images): of each class, or of all of them K times."""
    if shared:
        count = torch.full((classes,), len(y), device=y.device)
        return (delta.T @ delta).expand(classes, -1, -1), count
    detector_scores = [delta[y == number] for number in range(classes)]
    return torch.stack([part.T @ part for part in detector_scores]), torch.bincount(y, minlength=classes)


def _class_mean(spread: Tensor, y: Tensor, classes: int, shared: bool) -> Tensor:
    """(K, k) means of (N, k) over each class; over all images where a class has none, or ``shared``."""
    if bool((spread == spread[:1]).all()):  # constant entropy: a mean of equal numbers would be rounded
        return spread[:1].expand(classes, -1)
    overall = spread.mean(0).expand(classes, -1)
    if shared:
        return overall
    member = torch.nn.functional.one_hot(y, classes).to(spread.dtype)
    counts = member.sum(0)[:, None]
    return torch.where(counts > 0, member.T @ spread / counts.clamp(min=1), overall)


def _covariance(scatter: Tensor, counts: Tensor, mode: str, noise: Tensor) -> Tensor:
    latent = scatter.shape[1]
    if mode == "fixed":
        return noise
    empirical = scatter / counts.clamp(min=1)[:, None, None]
    if mode == "aggregated":
        return empirical + noise
    if int(counts.min()) <= latent:
        raise UserError(
            f"A class has {int(counts.min())} held-out images, too few for the covariance of {latent} dimensions: set "
            "defense.detector.covariance=aggregated or defense.detector.shared=true, or raise dataset.held_out."
        )
    return empirical
