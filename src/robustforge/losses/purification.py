"""Losses of the networks that rebuild images before they are classified."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def bernoulli_error(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of the pixels, summed over each image.

    Args:
        logits: (B, C, H, W), before the sigmoid.
        x: (B, C, H, W) in [0, 1].

    Returns:
        (B,), nats.
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)), summed over the latent: (B, d) twice, std above 0 -> (B,), nats."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)


def jensen_shannon(first: Tensor, second: Tensor, temperature: float = 1.0) -> Tensor:
    """Jensen-Shannon divergence of two softmaxes at a temperature (MagNet's detector, arXiv:1705.09064, Sec. 4.2.2).

    Args:
        first: (B, K) logits.
        second: (B, K) logits.
        temperature: T > 0 that divides both.

    Returns:
        (B,) in [0, log 2], nats.
    """
    logs = [F.log_softmax(logits / temperature, 1) for logits in (first, second)]
    middle = torch.stack(logs).logsumexp(0) - math.log(2)
    terms = [(log.exp() * (log - middle)).sum(1) for log in logs]
    return (0.5 * (terms[0] + terms[1])).clamp(min=0)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein critic's loss: mean score of generated minus mean score of real images; (B, 1) twice -> ()."""
    return fake.mean() - real.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """WGAN-GP's penalty (|grad D| - 1)^2 between real and generated images (Gulrajani et al. 2017, arXiv:1704.00028).

    Args:
        critic: (B, C, H, W) -> (B, 1).
        real: (B, C, H, W).
        fake: (B, C, H, W), taken as constant.
        share: (B, 1, 1, 1) in [0, 1], of the real image in the mixture.

    Returns:
        (), mean over the batch, differentiable in the critic's weights.
    """
    between = (share * real + (1 - share) * fake.detach()).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norms - 1).square().mean()
