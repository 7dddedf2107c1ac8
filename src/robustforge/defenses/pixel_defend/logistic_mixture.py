"""Discretized mixtures of logistic distributions (PixelCNN++, Salimans et al. 2017, arXiv:1701.05517, Sec. 2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256  # gray levels of a pixel, at 0, 1/255, ..., 1


@dataclass(frozen=True)
class LogisticMixture:
    """Mixtures of M logistic distributions of C channels, at any number of places.

    Attributes:
        log_weights: (B, M, ...), normalized over the components.
        means: (B, C, M, ...), in pixel units, before earlier channels shift them.
        log_scales: (B, C, M, ...), in pixel units.
        couplings: (B, C (C - 1) / 2, M, ...) in (-1, 1): how channel c follows channel j < c, in the order
            (1, 0), (2, 0), (2, 1).
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    couplings: Tensor

    def mean_after(self, channel: int, earlier: Sequence[Tensor]) -> Tensor:
        """Means (B, M, ...) of one channel, given the values (B, 1, ...) of all channels before it."""
        first = channel * (channel - 1) // 2
        mean = self.means[:, channel]
        for number, value in enumerate(earlier):
            mean = mean + self.couplings[:, first + number] * (value - 0.5)
        return mean


def parameters_of(channels: int, components: int) -> int:
    """Numbers a pixel that :func:`mixture_of` takes."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def mixture_of(numbers: Tensor, channels: int) -> LogisticMixture:
    """A network's output as mixtures.

    Args:
        numbers: (B, P, ...), with P of :func:`parameters_of`.
        channels: C.
    """
    numbers = numbers.float()
    groups = parameters_of(channels, 1)
    parts = numbers.reshape(len(numbers), groups, -1, *numbers.shape[2:])
    sizes = [1, channels, channels, groups - 1 - 2 * channels]
    weights, means, scales, couplings = torch.split(parts, sizes, 1)
    return LogisticMixture(
        F.log_softmax(weights[:, 0], 1),
        0.5 + 0.5 * means,
        (scales - math.log(2)).clamp(min=-7.0),
        couplings.tanh(),
    )


def discretized_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of gray levels: the mass of a logistic distribution in the bin around each (PixelCNN++, Eq. 2).

    Args:
        x: values in [0, 1]; the outermost bins reach to infinity.
        mean: of the distribution, pixel units; broadcast with ``x``.
        log_scale: likewise.

    Returns:
        Natural logarithms. Over the values 0, 1/255, ..., 1 the probabilities sum to one.

    Notes:
        With a and b the standardized ends of a bin, s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), which neither cancels
        nor underflows far from the mean.
    """
    half = 0.5 / (LEVELS - 1)
    rate = (-log_scale).exp()
    below = F.logsigmoid((x + half - mean) * rate)
    above = F.logsigmoid((mean - x + half) * rate)
    inside = below + above + (-torch.expm1(-2 * half * rate)).log()
    return torch.where(x < half, below, torch.where(x > 1 - half, above, inside))


def log_likelihood(mixture: LogisticMixture, x: Tensor) -> Tensor:
    """Log-probability of images under the mixtures of their pixels.

    Args:
        mixture: with places (H, W).
        x: (B, C, H, W) in [0, 1].

    Returns:
        (B,), nats, summed over the image.
    """
    joint, channels = mixture.log_weights, torch.split(x, 1, 1)
    for channel, value in enumerate(channels):
        mean = mixture.mean_after(channel, channels[:channel])
        joint = joint + discretized_logistic(value, mean, mixture.log_scales[:, channel])
    return joint.logsumexp(1).flatten(1).sum(1)


def bits_per_dimension(nats: Tensor, dimensions: int) -> Tensor:
    """Negative log-likelihoods (B,) in nats -> bits a pixel and channel (B,): lower is likelier."""
    return -nats / (dimensions * math.log(2))


def likeliest(mixture: LogisticMixture, x: Tensor, eps: float) -> Tensor:
    """The likeliest gray levels near the given values, channel after channel (PixelDefend, Algorithm 1).

    Args:
        mixture: of one pixel, without places.
        x: (B, C) in [0, 1].
        eps: how far each value may move.

    Returns:
        (B, C) gray levels in [0, 1], at most ``eps`` from ``x`` where a gray level is that near, else the nearest one.
    """
    top, slack = LEVELS - 1, 1e-3
    offsets = torch.arange(int(2 * eps * top) + 2, device=x.device)
    joint, chosen = mixture.log_weights[:, None], list[Tensor]()
    for channel in range(x.shape[1]):
        value = x[:, channel, None] * top
        nearest = value.round()
        lowest = torch.minimum((value - eps * top - slack).ceil(), nearest).clamp(min=0)
        highest = torch.maximum((value + eps * top + slack).floor(), nearest).clamp(max=top)
        levels = lowest + offsets
        candidates = levels / top
        mean = mixture.mean_after(channel, chosen)[:, None]
        terms = discretized_logistic(candidates[..., None], mean, mixture.log_scales[:, channel, None])
        terms = joint + terms
        scores = terms.logsumexp(2).masked_fill(levels > highest, -math.inf)
        best = scores.argmax(1, keepdim=True)
        # given the value, the components' weights are those of the distribution of the channels to come
        joint = terms.gather(1, best[..., None].expand(-1, -1, terms.shape[2]))
        chosen.append(candidates.gather(1, best))
    return torch.cat(chosen, 1)
