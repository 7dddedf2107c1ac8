"""MagNet's two auto-encoders (Meng & Chen 2017, arXiv:1705.09064; layers of its released code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.ranges import PositiveInt, Shape
from robustforge.types import UserError


class SigmoidAutoencoder(nn.Module):
    """3 x 3 convolutions with sigmoids, the image halved in between or not.

    Args:
        shape: (C, H, W).
        pooled: halve by average pooling in the middle (MNIST's AE-I), or not (AE-II and CIFAR's).
        width: channels of the hidden layers (released code: 3).

    Raises:
        UserError: no channel.
    """

    def __init__(self, shape: Shape, pooled: bool, width: PositiveInt = 3) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"The auto-encoder has width={width}: give 1 or more.")
        channels, self.pooled = shape[0], pooled
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3 if pooled else 1))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same."""
        h = self.first(x).sigmoid()
        if self.pooled:
            h = F.avg_pool2d(h, 2, ceil_mode=True)
            h = self.middle[1](self.middle[0](h).sigmoid()).sigmoid()
            h = F.interpolate(h, size=x.shape[-2:], mode="nearest")
        rebuilt: Tensor = self.last(self.middle[-1](h).sigmoid()).sigmoid()
        return rebuilt
