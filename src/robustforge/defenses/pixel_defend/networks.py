"""A small PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), written once for whole images, rows and pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.defenses.pixel_defend.logistic_mixture import (
    LogisticMixture,
    log_likelihood,
    mixture_of,
    parameters_of,
)
from robustforge.ranges import PositiveInt, Shape, ShareBelowOne


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees no pixel after its own place: the border decides what comes before.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: (rows, columns).
        border: pixels added (left, right, top, bottom); negative ones are cut off.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], border: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> None:
        super().__init__(inputs, outputs, kernel)
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return super().forward(F.pad(x, self.border))


Convolve = Callable[[ShiftedConv2d, Tensor], Tensor]


def everywhere(convolution: ShiftedConv2d, x: Tensor) -> Tensor:
    """The convolution of whole images; :mod:`robustforge.defenses.pixel_defend.raster` has those of rows and pixels."""
    answer: Tensor = convolution(x)
    return answer


def concat_elu(x: Tensor) -> Tensor:
    """(B, C, ...) -> (B, 2 C, ...): the exponential linear unit of both signs."""
    return F.elu(torch.cat([x, -x], 1))


class GatedBlock(nn.Module):
    """A gated residual layer (PixelCNN++, Sec. 2.4).

    Args:
        width: channels.
        kernel: of its two convolutions.
        border: likewise.
        context: whether it takes in another stream's features at the same place.
        dropout: between the convolutions.
    """

    def __init__(
        self, width: int, kernel: tuple[int, int], border: tuple[int, int, int, int], context: bool, dropout: float
    ) -> None:
        super().__init__()
        self.first = ShiftedConv2d(2 * width, width, kernel, border)
        self.context = ShiftedConv2d(2 * width, width, (1, 1)) if context else None
        self.dropout = nn.Dropout(dropout)
        self.second = ShiftedConv2d(2 * width, 2 * width, kernel, border)

    def forward(self, x: Tensor, context: Tensor | None, convolve: Convolve) -> Tensor:
        """(B, width, ...) and the other stream's features, of the same shape -> (B, width, ...)."""
        hidden = convolve(self.first, concat_elu(x))
        if self.context is not None and context is not None:
            hidden = hidden + convolve(self.context, concat_elu(context))
        value, gate = convolve(self.second, self.dropout(concat_elu(hidden))).chunk(2, 1)
        return x + value * gate.sigmoid()


class PixelCNN(nn.Module):
    """The distribution of every pixel given those above it and to its left.

    Args:
        shape: (C, H, W).
        width: channels of the features (paper: 160).
        blocks: gated layers of either stream; each sees two rows and two columns further.
        components: of the mixture of logistic distributions (PixelCNN++: 10).
        dropout: in training (PixelCNN++: 0.5).

    Notes:
        Two streams as in PixelCNN++: one sees the rows above, the other the pixels to the left and, through it, the
        rows above. All layers work at the image's own size; PixelCNN++ halves it twice, which widens the view of a
        network of 160 channels and costs one of 16 most of what it can say. Without weight normalization.
    """

    def __init__(
        self,
        shape: Shape,
        width: PositiveInt = 32,
        blocks: PositiveInt = 4,
        components: PositiveInt = 5,
        dropout: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.height, self.width = shape
        inputs = self.channels + 1
        self.from_above = ShiftedConv2d(inputs, width, (2, 3), (1, 1, 2, -1))
        self.from_left = ShiftedConv2d(inputs, width, (1, 2), (2, -1, 0, 0))
        self.above = nn.ModuleList(GatedBlock(width, (2, 3), (1, 1, 1, 0), False, dropout) for _ in range(blocks))
        self.left = nn.ModuleList(GatedBlock(width, (2, 2), (1, 0, 1, 0), True, dropout) for _ in range(blocks))
        self.last = ShiftedConv2d(2 * width, parameters_of(self.channels, components), (1, 1))

    def rows_above(self, pixels: Tensor, convolve: Convolve) -> list[Tensor]:
        """Features of the rows above, (B, width, ...) a block."""
        features, found = convolve(self.from_above, pixels), []
        for block in self.above:
            features = block(features, None, convolve)
            found.append(features)
        return found

    def numbers(self, pixels: Tensor, above: list[Tensor], convolve: Convolve) -> Tensor:
        """What :func:`mixture_of` takes, (B, P, ...), from pixels to the left and the features of rows above."""
        features = convolve(self.from_left, pixels)
        for block, context in zip(self.left, above, strict=True):
            features = block(features, context, convolve)
        return convolve(self.last, concat_elu(features))

    def mixture(self, x: Tensor) -> LogisticMixture:
        """(B, C, H, W) in [0, 1] -> the mixture of every pixel, given those before it."""
        pixels = as_input(x)
        return mixture_of(self.numbers(pixels, self.rows_above(pixels, everywhere), everywhere), self.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> log-likelihood (B,), nats."""
        return log_likelihood(self.mixture(x), x)


def as_input(x: Tensor) -> Tensor:
    """(B, C, ...) in [0, 1] -> (B, C + 1, ...): in [-1, 1], and ones that tell black pixels from the border."""
    return torch.cat([2 * x - 1, torch.ones_like(x[:, :1])], 1)
