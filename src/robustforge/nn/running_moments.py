"""Running mean and standard deviation of what a network computes, kept with its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Exponential averages of the mean and variance of J figures; they move in training mode only, when told to.

    Args:
        count: J.
        momentum: share of the newest batch.
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, count: int, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("variance", torch.ones(count))
        self.register_buffer("seen", torch.tensor(False))

    @property
    def std(self) -> Tensor:
        """(J,) standard deviations."""
        return self.variance.clamp(min=1e-12).sqrt()

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Takes in (N, J) values, N > 1, in training mode; does nothing in eval mode. The first batch counts whole."""
        if not self.training:
            return
        values = values.detach().float()
        share = torch.where(self.seen, self.momentum, 1.0)
        self.mean.lerp_(values.mean(0), share)
        self.variance.lerp_(values.var(0), share)
        self.seen.fill_(True)

    def forward(self, values: Tensor) -> Tensor:
        """(N, J) -> the same, in standard deviations from the mean."""
        return (values - self.mean) / self.std
