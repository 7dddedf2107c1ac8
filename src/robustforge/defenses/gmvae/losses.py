"""Losses of the Gaussian-mixture VAE with constant entropy (Ghosh, Losalka & Black, AAAI 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.gmvae.networks import reconstruction_error
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.defenses.gmvae.settings import AdversarialSettings, LabelSettings
from robustforge.types import Batch


def constant_entropy_terms(
    x: Tensor, rebuilt: Tensor, latent: Tensor, means: Tensor, alpha: float
) -> dict[str, Tensor]:
    """Eq. 7: |x - g(f(x) + eps)|^2 + alpha |f(x) - mu_y|^2.

    Args:
        x: (B, C, H, W) images in [0, 1].
        rebuilt: (B, C, H, W), decoded from the noisy latent.
        latent: (B, k) the encoder's answer f(x), without noise.
        means: (B, k) mean of each image's class.
        alpha: weight of the latent term.

    Returns:
        Scalars ``reconstruction`` and ``latent``.

    Notes:
        Both norms are squared, summed over pixels or latent dimensions and averaged over the batch. The constant
        alpha k sigma^2, by which E|z - mu_y|^2 exceeds |f(x) - mu_y|^2, is left out.
    """
    return {
        "reconstruction": (x - rebuilt).square().flatten(1).sum(1).mean(),
        "latent": alpha * (latent.float() - means).square().sum(1).mean(),
    }


def mixture_energy(z: Tensor, means: Tensor, variance: float) -> Tensor:
    """-2 v logsumexp_c(-|z - mu_c|^2 / 2v): what takes the place of |z - mu_y|^2 where the label is unknown (Eq. 3).

    Args:
        z: (B, k) latents.
        means: (K, k).
        variance: v of every component, above 0; the smaller, the closer to the squared distance to the nearest mean.

    Returns:
        (B,), at most the smallest squared distance, by at most 2 v log K.
    """
    distances = (z.float()[:, None] - means[None]).square().sum(2)
    return -2 * variance * torch.logsumexp(-distances / (2 * variance), 1)


def annealed_variance(variance: float, progress: float, start: float, until: float) -> float:
    """The component variance of :func:`mixture_energy` on the way through training.

    Args:
        variance: at the end.
        progress: share of training done, in [0, 1].
        start: factor at the beginning, at least 1; wide components leave every image several classes to move to.
        until: share of training after which the factor is 1; it falls geometrically before.
    """
    left = max(0.0, 1 - progress / until) if until > 0 else 0.0
    return float(variance * start**left)


def variable_entropy_latent(mean: Tensor, log_variance: Tensor, means: Tensor, variance: float) -> Tensor:
    """2 v KL(N(mean, diag s) || N(mu_y, v I)), the latent term of an ordinary VAE in the units of |f(x) - mu_y|^2.

    Args:
        mean: (B, k).
        log_variance: (B, k), log s.
        means: (B, k) mean of each image's class.
        variance: v of the component.

    Returns:
        (B,), at least |mean - mu_y|^2, and equal to it where s = v.
    """
    log_ratio = log_variance.float() - torch.log(torch.tensor(variance)).item()
    spread = (log_ratio.exp() - 1 - log_ratio).sum(1)
    return (mean.float() - means).square().sum(1) + variance * spread


def labeled_terms(
    classifier: SelectiveClassifier, x: Tensor, y: Tensor, variance: float, alpha: float, variable_entropy: bool
) -> dict[str, Tensor]:
    """Loss terms of images with labels: Eq. 7, or its variable-entropy form.

    Args:
        classifier: trained.
        x: (B, C, H, W) images in [0, 1].
        y: (B,) their labels.
        variance: of the encoder's noise and of the components.
        alpha: weight of the latent term.
        variable_entropy: the encoder answers its own variances.
    """
    answer = classifier.encoder(x).float()
    mean, means = answer[:, : classifier.latent], classifier.detector.means[y]
    if not variable_entropy:
        noisy = mean + variance**0.5 * torch.randn_like(mean)
        return constant_entropy_terms(x, classifier.decoder(noisy).float(), mean, means, alpha)
    log_variance = answer[:, classifier.latent :]
    noisy = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    return {
        "reconstruction": reconstruction_error(x, classifier.decoder(noisy)).mean(),
        "latent": alpha * variable_entropy_latent(mean, log_variance, means, variance).mean(),
    }


def with_attacked(
    terms: dict[str, Tensor],
    classifier: SelectiveClassifier,
    settings: AdversarialSettings,
    surface: Surface,
    batch: Batch,
    alpha: float,
    seed: int,
) -> dict[str, Tensor]:
    """Loss terms of labeled images whose latent term is shared between clean and attacked ones.

    Args:
        terms: of the clean images, see :func:`labeled_terms`.
        classifier: trained.
        settings: of the attack.
        surface: the encoder's class scores.
        batch: clean images.
        alpha: weight of the latent term.
        seed: of the attack.

    Notes:
        Attacked images are not rebuilt: the decoder learns clean images alone, so that its error still tells others.
    """
    x_adv = settings.attack(surface, batch.x, batch.y, settings.threat, index=batch.index, seed=seed).x_adv
    distance = (classifier.encode(x_adv) - classifier.detector.means[batch.y]).square().sum(1)
    shared = {"latent": (1 - settings.weight) * terms["latent"], "attacked": settings.weight * alpha * distance.mean()}
    return {**terms, **shared}


def unlabeled_terms(
    classifier: SelectiveClassifier, x: Tensor, variance: float, alpha: float, labels: LabelSettings, progress: float
) -> dict[str, Tensor]:
    """Loss terms of images without labels (Eq. 3), at ``progress`` in [0, 1] of training; see :func:`labeled_terms`."""
    z = classifier.encode(x)
    z = z + variance**0.5 * torch.randn_like(z)
    annealed = annealed_variance(variance, progress, labels.anneal_from, labels.anneal_until)
    return {
        "unlabeled_reconstruction": reconstruction_error(x, classifier.decoder(z)).mean(),
        "unlabeled_latent": alpha * mixture_energy(z, classifier.detector.means, annealed).mean(),
    }
