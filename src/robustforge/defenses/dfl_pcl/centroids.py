"""Points of feature space that stand for classes: learned ones, and the running means of what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.defenses.dfl_pcl.networks import DefensiveFeatureNetwork


class Centroids(nn.Module):
    """One learnable point a class.

    Args:
        num_classes: K.
        dim: d of the features.
        unit: start on the unit sphere.

    Attributes:
        weight: (K, d), drawn from N(0, 1).
    """

    def __init__(self, num_classes: int, dim: int, unit: bool = True) -> None:
        super().__init__()
        points = torch.randn(num_classes, dim)
        self.weight = nn.Parameter(F.normalize(points, dim=1) if unit else points)


@dataclass(frozen=True)
class FeatureSpace:
    """Where features meet the centroids that they are pulled to.

    Attributes:
        network: whose features.
        centroids: (K, d) as learned, or None where the loss has none.
        normalized: whether features and centroids are compared on the unit sphere.
    """

    network: DefensiveFeatureNetwork
    centroids: Tensor | None
    normalized: bool

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> features (B, d) as the loss compares them."""
        features: Tensor = self.network.respond(x).features.float()
        return F.normalize(features, dim=1) if self.normalized else features

    @property
    def anchors(self) -> Tensor | None:
        """The centroids (K, d) as the loss compares them."""
        if self.centroids is None:
            return None
        return F.normalize(self.centroids, dim=1) if self.normalized else self.centroids


class ClassMeans(nn.Module):
    """Running mean of each class's features at several depths, for attackers that steer features toward a class.

    Args:
        num_classes: K.
        widths: d of the features at each depth.
        momentum: share of the latest batch.
    """

    def __init__(self, num_classes: int, widths: Sequence[int], momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum, self.depths = momentum, len(widths)
        self.register_buffer("seen", torch.zeros(num_classes))
        for depth, width in enumerate(widths):
            self.register_buffer(f"mean{depth}", torch.zeros(num_classes, width))

    @property
    def means(self) -> list[Tensor]:
        """(K, d) at each depth."""
        return [self.get_buffer(f"mean{depth}") for depth in range(self.depths)]

    @torch.no_grad()
    def update(self, features: Sequence[Tensor], y: Tensor) -> None:
        """Takes in one batch.

        Args:
            features: (B, d) at each depth.
            y: (B,) labels.
        """
        seen = self.get_buffer("seen")
        member = F.one_hot(y, len(seen)).float()
        count = member.sum(0)
        # the first batch of a class replaces the zeros
        share = torch.where(seen > 0, self.momentum, 1.0) * (count > 0)
        for mean, value in zip(self.means, features, strict=True):
            batch_mean = member.T @ value.detach().float() / count.clamp_min(1)[:, None]
            mean.lerp_(batch_mean.to(mean.dtype), share[:, None])
        seen.add_(count)
