"""Generator and critic of Defense-GAN (Samangouei et al. 2018, arXiv:1805.06605; layers of its released code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.ranges import PositiveInt, Shape
from robustforge.types import UserError


def _halvings(side: int) -> list[int]:
    """The side, and three times its half, rounded up."""
    sides = [side]
    for _ in range(3):
        sides.append((sides[-1] + 1) // 2)
    return sides


class Generator(nn.Module):
    """z -> image: a dense layer and three transposed 5 x 5 convolutions of stride 2, ReLU, sigmoid at the end.

    Args:
        shape: (C, H, W); each doubling is cropped to what the next size needs (28: 4, 7 of 8, 14, 28).
        latent: length of z.
        width: channels before the last layer; twice and four times as many before (released code: 64).

    Raises:
        UserError: no latent or no channel.
    """

    def __init__(self, shape: Shape, latent: PositiveInt = 128, width: PositiveInt = 64) -> None:
        super().__init__()
        if min(latent, width) < 1:
            raise UserError(f"The generator has latent={latent} and width={width}: give 1 or more of each.")
        channels, height, columns = shape
        self.latent = latent
        sizes = list(zip(_halvings(height), _halvings(columns), strict=True))[::-1]
        self.sizes = sizes[1:]
        self.start = nn.Sequential(nn.Linear(latent, 4 * width * sizes[0][0] * sizes[0][1]), nn.ReLU())
        self.unflatten = nn.Unflatten(1, (4 * width, *sizes[0]))
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1)
            for before, after in ((4 * width, 2 * width), (2 * width, width), (width, channels))
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [0, 1]."""
        h: Tensor = self.unflatten(self.start(z))
        for number, (layer, (height, width)) in enumerate(zip(self.layers, self.sizes, strict=True)):
            h = F.relu(h) if number else h
            h = layer(h)[..., :height, :width]
        return h.sigmoid()


class Critic(nn.Sequential):
    """Image -> score (B, 1): three 5 x 5 convolutions of stride 2, LeakyReLU 0.2, one dense unit.

    Args:
        shape: (C, H, W).
        width: channels of the first layer, doubled twice (released code: 64).
    """

    def __init__(self, shape: Shape, width: PositiveInt = 64) -> None:
        channels, height, columns = shape
        layers: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
        units = 4 * width * _halvings(height)[-1] * _halvings(columns)[-1]
        super().__init__(*layers, nn.Flatten(), nn.Linear(units, 1))
