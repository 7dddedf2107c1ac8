"""Encoder, decoder and classifier-B of Memory Defense (arXiv:2202.02595, Table 4 and released code)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

from robustforge.types import UserError

READINGS = ("b", "c")
LEAK = 0.25
GRAY_WIDTHS, COLOR_WIDTHS = (16, 32, 64), (64, 128, 128, 256)


def spatial_sizes(side: int, layers: int, reading: str) -> list[int]:
    """Sides of the image and of the features after each of ``layers`` convolutions of stride 2, pixels.

    A 3 x 3 convolution with padding 1 halves and rounds up; a 2 x 2 one without padding (reading c) rounds down.
    """
    sizes = [side]
    for _ in range(layers):
        sizes.append((sizes[-1] + 1) // 2 if reading == "b" else sizes[-1] // 2)
    return sizes


class ConvEncoder(nn.Sequential):
    """Convolutions of stride 2, batch normalization, leaky ReLU (sigmoid at the end), flattened.

    Attributes:
        dim: d, length of the latent.
    """

    def __init__(self, layers: Sequence[nn.Module], dim: int) -> None:
        super().__init__(*layers, nn.Flatten())
        self.dim = dim


class ConvDecoder(nn.Sequential):
    """Transposed convolutions of stride 2, batch normalization, leaky ReLU; the last is linear."""


def encoder(shape: Sequence[int], reading: str = "b", first_kernel: int = 1) -> ConvEncoder:
    """The encoder for images of ``shape``.

    Args:
        shape: (C, H, W); the Fashion-MNIST column of Table 4 for one channel, the CIFAR-10 column otherwise.
        reading: of the CIFAR-10 column, whose "64 x 2 x 1" is ambiguous: ``b`` kernel 3, stride 2, padding 1; ``c``
            kernel 2, stride 2. No effect on one-channel images.
        first_kernel: of the first convolution of one-channel images: 1 (paper) or 3. No effect on others.

    Returns:
        Module from (B, C, H, W) in [0, 1] to latents (B, d) in [0, 1].

    Raises:
        UserError: unknown reading or kernel, or an image that is halved to nothing.

    Notes:
        The paper's 1 x 1 convolution of stride 2 skips three pixels in four, which are then without gradient: an
        accidental gradient mask. ``first_kernel=3`` is ours and sees every pixel.
    """
    if first_kernel not in (1, 3):
        raise UserError(f"first_kernel is {first_kernel}: choose 1 (paper) or 3 (sees every pixel).")
    channels, widths, reading, sizes = _plan(shape, reading)
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
        kernel, padding = _geometry(reading)
        convolution = nn.Conv2d(before, after, kernel, stride=2, padding=padding)
        if channels == 1 and index == 0 and first_kernel == 1:
            convolution = nn.Conv2d(before, after, 1, stride=2, padding=_paddings_1x1(shape))
        last = index == len(widths) - 1
        layers += [convolution, nn.BatchNorm2d(after), nn.Sigmoid() if last else nn.LeakyReLU(LEAK)]
    return ConvEncoder(layers, widths[-1] * prod(axis[-1] for axis in sizes))


def decoder(shape: Sequence[int], reading: str = "b", sigmoid: bool = False) -> ConvDecoder:
    """The decoder that mirrors :func:`encoder` and returns exactly H x W.

    Args:
        shape: (C, H, W).
        reading: as in :func:`encoder`.
        sigmoid: bound the image to [0, 1] (ours; the released code is linear).

    Returns:
        Module from (B, d) to (B, C, H, W).

    Raises:
        UserError: unknown reading, or an image that is halved to nothing.

    Notes:
        Table 4's decoder lists are input channels for Fashion-MNIST (as in the code) and output channels for CIFAR-10
        (the list ends in 3).
    """
    channels, widths, reading, sizes = _plan(shape, reading)
    kernel, padding = _geometry(reading)
    # gray 64, 32, 16, C; color 256, 256, 128, 128, C: Table 4's CIFAR-10 decoder keeps 256 once more and has no 64
    outputs = [*widths[-2::-1], channels] if channels == 1 else [*widths[:0:-1], channels]
    layers: list[nn.Module] = [nn.Unflatten(1, (widths[-1], *(axis[-1] for axis in sizes)))]
    for index, (before, after) in enumerate(zip([widths[-1], *outputs], outputs, strict=False)):
        wanted = [axis[-2 - index] for axis in sizes]
        have = [axis[-1 - index] for axis in sizes]
        rows, columns = (w - ((h - 1) * 2 - 2 * padding + kernel) for w, h in zip(wanted, have, strict=True))
        layers.append(
            nn.ConvTranspose2d(before, after, kernel, stride=2, padding=padding, output_padding=(rows, columns))
        )
        if index < len(outputs) - 1:
            layers += [nn.BatchNorm2d(after), nn.LeakyReLU(LEAK)]
    return ConvDecoder(*layers, *([nn.Sigmoid()] if sigmoid else []))


class TargetClassifier(nn.Sequential):
    """Classifier-B, (B, C, H, W) -> logits (B, K): convolutions of 6 and 16 channels, dense layers of 256 and 128.

    Args:
        shape: (C, H, W) of the (rebuilt) image.
        num_classes: K.
        dropout: after both hidden dense layers (released code: 0.5; absent from the paper).

    Raises:
        UserError: images under 16 pixels.

    Notes:
        Table 4's "256 x 256" fits 28 x 28 images only; the first dense layer takes what the pooling leaves (400 at
        CIFAR-10's size).
    """

    def __init__(self, shape: Sequence[int], num_classes: int, dropout: float = 0.5) -> None:
        channels, *sides = shape
        if min(sides) < 16:
            raise UserError(f"Classifier-B needs images of at least 16 pixels, these have {sides[0]}x{sides[1]}.")
        features = 16 * prod(((side - 4) // 2 - 4) // 2 for side in sides)
        super().__init__(
            nn.Conv2d(channels, 6, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(features, 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, num_classes),
        )


def _plan(shape: Sequence[int], reading: str) -> tuple[int, tuple[int, ...], str, list[list[int]]]:
    if reading not in READINGS:
        raise UserError(f"reading is '{reading}': choose b (kernel 3, stride 2, padding 1) or c (kernel 2, stride 2).")
    channels, height, width = shape
    widths, reading = (GRAY_WIDTHS, "b") if channels == 1 else (COLOR_WIDTHS, reading)
    sizes = [spatial_sizes(side, len(widths), reading) for side in (height, width)]
    if min(axis[-1] for axis in sizes) < 1:
        smallest = 2 ** len(widths) if reading == "c" else 1
        raise UserError(
            f"An image of {height}x{width} pixels is halved {len(widths)} times, to nothing: "
            f"give at least {smallest} pixels, or reading b."
        )
    return channels, widths, reading, sizes


def _geometry(reading: str) -> tuple[int, int]:
    return (3, 1) if reading == "b" else (2, 0)


def _paddings_1x1(shape: Sequence[int]) -> tuple[int, int]:
    # The paper's padding of 1 adds a border of zeros: 28 -> 15 -> 8 -> 4. Where that would enlarge the latent (sides
    # whose half is a multiple of 4, such as 32) there is no padding, so that the decoder is the same for both kernels.
    height, width = (0 if (side + 1) // 2 % 4 == 0 else 1 for side in shape[1:])
    return height, width
