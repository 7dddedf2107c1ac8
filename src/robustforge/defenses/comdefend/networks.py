"""ComCNN and RecCNN (Jia et al. 2019, arXiv:1811.12673; layers of the released code), and the code between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustforge.nn.straight_through import backward_pass
from robustforge.ranges import PositiveInt, Shape, Some


def convolutions(widths: Sequence[int]) -> nn.Sequential:
    """3 x 3 convolutions that keep the image's size, with exponential linear units between them; linear at the end.

    Args:
        widths: channels, those of the input first.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class CompressionNetwork(nn.Module):
    """ComCNN compresses an image to a few numbers a pixel, RecCNN rebuilds it from their signs.

    Args:
        shape: (C, H, W).
        code: numbers a pixel (released code: 12 for color images, 4 for gray ones).
        widths: channels of ComCNN's hidden layers (released code: 16, 32, 64, 128, 256, 128, 64, 32 for color images;
            32, 64, 128, 256, 128, 64, 64, 32 for gray ones). RecCNN has them in the opposite order.
    """

    def __init__(
        self,
        shape: Shape,
        code: PositiveInt = 12,
        widths: Some[PositiveInt] = (16, 32, 64, 128, 256, 128, 64, 32),
    ) -> None:
        super().__init__()
        channels = shape[0]
        self.code_shape = (code, *shape[1:])
        self.compress = convolutions([channels, *widths, code])
        self.reconstruct = convolutions([code, *reversed(widths), channels])

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the linear code (B, code, H, W)."""
        code: Tensor = self.compress(x - 0.5)
        return code

    def decode(self, bits: Tensor) -> Tensor:
        """(B, code, H, W) in [0, 1] -> (B, C, H, W) in [0, 1]."""
        pixels: Tensor = self.reconstruct(bits)
        return pixels.sigmoid()


def soft_bits(code: Tensor, noise: Tensor) -> Tensor:
    """The code as RecCNN sees it in training (Eq. 4): sigmoid(code - noise), which noise pushes to 0 and 1.

    Args:
        code: (B, code, H, W).
        noise: of the same shape, in units of the code.
    """
    return (code - noise).sigmoid()


def hard_bits(code: Tensor, temperature: float) -> Tensor:
    """One bit for each number, sigmoid(code) > 0.5, going forward; sigmoid(code / temperature) going backward.

    Args:
        code: (B, code, H, W).
        temperature: T > 0. Noise in training drives codes far from 0, where a sigmoid with T = 1 has hardly a slope.

    Returns:
        (B, code, H, W), exactly 0 or 1.
    """
    return backward_pass(lambda z: (z > 0).to(z.dtype), code, lambda z: (z / temperature).sigmoid())


def compression_loss(rebuilt: Tensor, x: Tensor, code: Tensor, penalty: float) -> dict[str, Tensor]:
    """ComDefend's loss (Eqs. 1, 3 and 5): squared error, and a penalty on the size of the code.

    Args:
        rebuilt: (B, C, H, W).
        x: (B, C, H, W) clean images.
        code: (B, code, H, W), linear and without noise.
        penalty: weight of its mean square (paper: 0.0001).

    Returns:
        ``mse`` and ``penalty``, means over all elements.
    """
    return {"mse": torch.mean((rebuilt - x).square()), "penalty": penalty * code.square().mean()}
