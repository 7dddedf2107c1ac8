"""What the Gaussian-mixture VAE is trained on: Eq. 7, its variable-entropy form, and the semi-supervised sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustforge.defenses.gmvae.losses import (
    annealed_variance,
    constant_entropy_terms,
    mixture_energy,
    variable_entropy_latent,
)
from robustforge.defenses.gmvae.networks import reconstruction_error

if TYPE_CHECKING:
    from robustforge.defenses.gmvae.module import GaussianMixtureVAE


def labeled_terms(defense: GaussianMixtureVAE, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Loss terms of images (B, C, H, W) with labels (B,)."""
    answer = defense.encoder(x).float()
    mean, means = answer[:, : defense.latent], defense.detector.means[y]
    if not defense.variable_entropy:
        noisy = mean + defense.variance**0.5 * torch.randn_like(mean)
        return constant_entropy_terms(x, defense.decoder(noisy).float(), mean, means, defense.alpha)
    log_variance = answer[:, defense.latent :]
    noisy = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    latent = variable_entropy_latent(mean, log_variance, means, defense.variance)
    return {
        "reconstruction": reconstruction_error(x, defense.decoder(noisy)).mean(),
        "latent": defense.alpha * latent.mean(),
    }


def unlabeled_terms(defense: GaussianMixtureVAE, x: Tensor, progress: float) -> dict[str, Tensor]:
    """Loss terms of images (B, C, H, W) without labels (Eq. 3), at ``progress`` in [0, 1] of training."""
    settings, z = defense.label_settings, defense.encode(x)
    z = z + defense.variance**0.5 * torch.randn_like(z)
    variance = annealed_variance(defense.variance, progress, settings.anneal_from, settings.anneal_until)
    return {
        "unlabeled_reconstruction": reconstruction_error(x, defense.decoder(z)).mean(),
        "unlabeled_latent": defense.alpha * mixture_energy(z, defense.detector.means, variance).mean(),
    }
