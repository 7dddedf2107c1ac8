"""Generator and discriminator of APE-GAN (Shen et al. 2017, arXiv:1707.05474; layers of its released code)."""

from __future__ import annotations

from torch import Tensor, nn

from robustforge.nn.padding import crop_to, pad_to_multiple, padded_size
from robustforge.ranges import PositiveInt, Shape
from robustforge.types import UserError

_SLOPE = 0.2  # of LeakyReLU below zero


class Generator(nn.Module):
    """Image -> image: two 5 x 5 convolutions of stride 2, two transposed ones back, tanh at the end.

    Args:
        shape: (C, H, W); images are padded to a multiple of 4 and cropped again.
        width: channels of the first layer, twice as many in the middle (released code: 64).

    Raises:
        UserError: no channel.

    Notes:
        Inside, pixels lie in [-1, 1], as in the released code.
    """

    def __init__(self, shape: Shape, width: PositiveInt = 64) -> None:
        super().__init__()
        _check("generator", width)
        channels, self.height, self.columns = shape
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.LeakyReLU(_SLOPE),
            *_normalized(nn.Conv2d(width, 2 * width, 5, stride=2, padding=2, bias=False)),
        )
        self.up = nn.Sequential(
            *_normalized(nn.ConvTranspose2d(2 * width, width, 5, stride=2, padding=2, output_padding=1, bias=False)),
            nn.ConvTranspose2d(width, channels, 5, stride=2, padding=2, output_padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same."""
        rebuilt = self.up(self.down(pad_to_multiple(2 * x - 1, 4))).tanh()
        return crop_to((rebuilt + 1) / 2, self.height, self.columns)


class Discriminator(nn.Sequential):
    """Image -> logit (B, 1), positive for clean: three 5 x 5 convolutions of stride 2 and one dense unit.

    Args:
        shape: (C, H, W).
        width: channels of the first layer, doubled twice (released code: 64).

    Raises:
        UserError: no channel.
    """

    def __init__(self, shape: Shape, width: PositiveInt = 64) -> None:
        _check("discriminator", width)
        channels, height, columns = shape
        rows, columns = (padded_size(side, 8) // 8 for side in (height, columns))
        super().__init__(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.LeakyReLU(_SLOPE),
            *_normalized(nn.Conv2d(width, 2 * width, 5, stride=2, padding=2, bias=False)),
            *_normalized(nn.Conv2d(2 * width, 4 * width, 5, stride=2, padding=2, bias=False)),
            nn.Flatten(),
            nn.Linear(4 * width * rows * columns, 1),
        )


def _normalized(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.LeakyReLU(_SLOPE)]


def _check(name: str, width: int) -> None:
    if width < 1:
        raise UserError(f"The {name} has width={width}: give 1 or more.")
