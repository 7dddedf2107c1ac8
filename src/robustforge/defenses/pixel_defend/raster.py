"""Purification pixel after pixel, all images at once; each layer is computed once a pixel and kept.

The work is that of one forward pass, as in Fast PixelCNN++ (Ramachandran et al. 2017, arXiv:1704.06001): a convolution
at one place needs the features of its few neighbors, which do not change any more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.defenses.pixel_defend.logistic_mixture import LEVELS, likeliest, mixture_of
from robustforge.defenses.pixel_defend.networks import PixelCNN, ShiftedConv2d, as_input


class RowCache:
    """Convolutions of one row after another: each keeps what it was given for the row before."""

    def __init__(self) -> None:
        self.before: dict[ShiftedConv2d, Tensor] = {}

    def __call__(self, convolution: ShiftedConv2d, row: Tensor) -> Tensor:
        """(B, inputs, 1, W) -> (B, outputs, 1, W), for kernels of two rows and three columns."""
        before = self.before.get(convolution)
        strip = torch.cat([torch.zeros_like(row) if before is None else before, row], 2)
        self.before[convolution] = row
        return F.conv2d(strip, convolution.weight, convolution.bias, padding=(0, 1))


class PixelCache:
    """Convolutions of one pixel after another, for kernels of one or two rows and columns.

    Args:
        width: of the images.

    Attributes:
        column: where the pixel is.
    """

    def __init__(self, width: int) -> None:
        self.width, self.column = width, 0
        self.kept: dict[ShiftedConv2d, Tensor] = {}
        self.weights: dict[ShiftedConv2d, Tensor] = {}

    def __call__(self, convolution: ShiftedConv2d, pixel: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        rows, columns = convolution.kernel_size
        if convolution not in self.weights:
            self.weights[convolution] = convolution.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
            # a column of zeros to the left, and a row above
            self.kept[convolution] = pixel.new_zeros(len(pixel), rows, self.width + 1, pixel.shape[1])
        if columns > 1:
            kept = self.kept[convolution]
            kept[:, -1, self.column + 1] = pixel
            pixel = kept[:, :, self.column : self.column + columns].flatten(1)
        return F.linear(pixel, self.weights[convolution], convolution.bias)

    def end_row(self) -> None:
        """What was the row is the row above now."""
        for kept in self.kept.values():
            kept[:, 0] = kept[:, -1]


@torch.no_grad()
def purify(network: PixelCNN, x: Tensor, eps: float) -> Tensor:
    """Moves every pixel to its likeliest gray level nearby, given the pixels already moved (PixelDefend, Algorithm 1).

    Args:
        network: trained, in eval mode.
        x: (B, C, H, W) in [0, 1].
        eps: how far a pixel may move, in units of [0, 1].

    Returns:
        (B, C, H, W) gray levels in [0, 1]. Float32, also under autocast.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        purified = torch.empty_like(x, memory_format=torch.contiguous_format)
        nothing = x.new_zeros(len(x), x.shape[1] + 1, 1, x.shape[3])
        row_before, rows, pixels = nothing, RowCache(), PixelCache(x.shape[3])
        for row in range(x.shape[2]):
            above = [features[:, :, 0] for features in network.rows_above(row_before, rows)]
            left = nothing[:, :, 0, 0]
            for column in range(x.shape[3]):
                pixels.column = column
                numbers = network.numbers(left, [features[:, :, column] for features in above], pixels)
                chosen = likeliest(mixture_of(numbers, x.shape[1]), x[:, :, row, column], eps)
                purified[:, :, row, column] = chosen
                left = as_input(chosen)
            pixels.end_row()
            row_before = as_input(purified[:, :, row : row + 1])
    return purified


@torch.no_grad()
def likelier(network: PixelCNN, x: Tensor, purified: Tensor) -> Tensor:
    """Of each image the likelier version: as it came, or purified.

    Args:
        network: trained, in eval mode.
        x: (B, C, H, W) in [0, 1], taken to the nearest gray levels.
        purified: the same images, gray levels.

    Returns:
        (B, C, H, W) gray levels in [0, 1].
    """
    with torch.autocast(x.device.type, enabled=False):
        unmoved = (x.float() * (LEVELS - 1)).round() / (LEVELS - 1)
        gained = network(purified) > network(unmoved)
    return torch.where(gained[:, None, None, None], purified, unmoved)
