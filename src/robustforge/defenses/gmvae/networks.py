"""Encoder and decoder of the Gaussian-mixture VAE (Ghosh, Losalka & Black, AAAI 2019, "Implementation details")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from robustforge.types import UserError


@dataclass(frozen=True)
class Layout:
    """Layers for one image size.

    Attributes:
        blocks: maps of the 3 x 3 convolutions, block by block; every block ends in a max-pool that halves the image.
        hidden: units of the dense layer on either side of the latent.
        up: maps of the convolution after each doubling of the decoder.
    """

    blocks: tuple[tuple[int, ...], ...]
    hidden: int
    up: tuple[int, ...]


LAYOUTS = {
    28: Layout(((32, 32), (64, 64)), 256, (64, 32)),
    32: Layout(((64, 64), (128, 128), (256, 256)), 512, (128, 64, 64)),
    64: Layout(((32,), (64,), (128,), (256,)), 512, (128, 64, 64, 32)),
    128: Layout(((32,), (64,), (128,), (128,), (256,)), 512, (256, 128, 128, 64, 32)),
}


def mixture_encoder(shape: Sequence[int], outputs: int, width: float = 1.0, batch_norm: bool = False) -> nn.Sequential:
    """Convolutions, max-pooling and dense layers with ReLU; linear at the end.

    Args:
        shape: (C, H, W), square, of 28, 32, 64 or 128 pixels.
        outputs: length of the latent (twice that where the encoder also answers variances).
        width: factor on all numbers of maps and units; 1 is the full network.
        batch_norm: normalize after every convolution.

    Returns:
        Module from (B, C, H, W) in [0, 1] to (B, outputs).

    Raises:
        UserError: a size without a layout.

    Notes:
        The paper names the kinds of layers and neither their number nor their sizes: those are our choice.
    """
    layout = _layout(shape, width)
    layers: list[nn.Module] = []
    maps = shape[0]
    for block in layout.blocks:
        for wanted in block:
            layers += _convolution(maps, wanted, batch_norm)
            maps = wanted
        layers.append(nn.MaxPool2d(2))
    features = maps * _coarse(shape, layout) ** 2
    layers += [nn.Flatten(), nn.Linear(features, layout.hidden), nn.ReLU(), nn.Linear(layout.hidden, outputs)]
    return nn.Sequential(*layers)


def mixture_decoder(shape: Sequence[int], latent: int, width: float = 1.0, batch_norm: bool = False) -> nn.Sequential:
    """Dense layers, then nearest up-sampling and convolutions with ReLU; a sigmoid at the end.

    Args:
        shape: (C, H, W) of the images, see :func:`mixture_encoder`.
        latent: length of the latent.
        width: factor on all numbers of maps and units.
        batch_norm: normalize after every convolution but the last.

    Returns:
        Module from (B, latent) to (B, C, H, W) in [0, 1].

    Raises:
        UserError: a size without a layout.
    """
    layout = _layout(shape, width)
    maps, side = layout.blocks[-1][-1], _coarse(shape, layout)
    layers: list[nn.Module] = [
        nn.Linear(latent, layout.hidden),
        nn.ReLU(),
        nn.Linear(layout.hidden, maps * side**2),
        nn.ReLU(),
        nn.Unflatten(1, (maps, side, side)),
    ]
    for wanted in layout.up:
        layers += [nn.Upsample(scale_factor=2), *_convolution(maps, wanted, batch_norm)]
        maps = wanted
    return nn.Sequential(*layers, nn.Conv2d(maps, shape[0], 3, padding=1), nn.Sigmoid())


def squared_residual(x: Tensor, rebuilt: Tensor) -> Tensor:
    """Squared differences of images (B, C, H, W), pixel by pixel: (B, C*H*W) float32, squared pixel units."""
    return (x.float() - rebuilt.float()).square().flatten(1)


def reconstruction_error(x: Tensor, rebuilt: Tensor) -> Tensor:
    """Squared Euclidean distance of images (B, C, H, W), summed over pixels: (B,) float32, squared pixel units."""
    return squared_residual(x, rebuilt).sum(1)


def _convolution(before: int, after: int, batch_norm: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()] if batch_norm else [convolution, nn.ReLU()]


def _layout(shape: Sequence[int], width: float) -> Layout:
    _, height, columns = shape
    if height != columns or height not in LAYOUTS:
        raise UserError(
            f"The Gaussian-mixture VAE has no layers for images of {height}x{columns} pixels: resize them to a square "
            f"of {', '.join(map(str, LAYOUTS))} (dataset.shape)."
        )
    if not width > 0:
        raise UserError(f"defense.width is {width}: give a factor above 0 (1 is the full network).")
    full = LAYOUTS[height]

    def scaled(maps: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(width * value)) for value in maps)

    return Layout(tuple(scaled(block) for block in full.blocks), scaled([full.hidden])[0], scaled(full.up))


def _coarse(shape: Sequence[int], layout: Layout) -> int:
    side: int = shape[1] // 2 ** len(layout.blocks)
    return side
