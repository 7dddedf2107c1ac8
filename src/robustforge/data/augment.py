"""Augmentation of whole batches: pure functions of a tensor and a generator, on the tensor's device.

An image may be stacked with its adversarial partner along the channels; all draws are made once an image, so that both
receive the same crop, flip and erased rectangle, and their difference stays the perturbation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from robustforge.hints import check_fields
from robustforge.ranges import NonNegativeInt, PositiveFloat, PositiveShare, Share
from robustforge.types import UserError


def _uniform(x: Tensor, generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(B,) float32 draws from [low, high) on the device of ``x``."""
    return torch.rand(len(x), generator=generator, device=x.device) * (high - low) + low


def random_crop(x: Tensor, padding: int, generator: Generator) -> Tensor:
    """Pad with zeros on all sides and cut a window of the old size, drawn uniformly for each image.

    Args:
        x: (B, C, H, W).
        padding: pixels on each side; 0 returns ``x`` itself.
        generator: on the device of ``x``.

    Returns:
        (B, C, H, W).
    """
    if padding == 0:
        return x
    height, width = x.shape[-2:]
    top, left = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=generator, device=x.device)
    # unfold makes a view with all windows, (B, C, 2p + 1, 2p + 1, H, W); one indexing call copies the chosen ones.
    windows = F.pad(x, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _flip(x: Tensor, dim: int, generator: Generator, p: float) -> Tensor:
    chosen = (_uniform(x, generator) < p).view(-1, 1, 1, 1)
    return torch.where(chosen, x.flip(dim), x)


def random_flip(x: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror left and right with probability ``p``, each image (B, C, H, W) for itself."""
    return _flip(x, -1, generator, p)


def random_vertical_flip(x: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror top and bottom with probability ``p``, each image (B, C, H, W) for itself."""
    return _flip(x, -2, generator, p)


def random_erasing(
    x: Tensor,
    p: float,
    generator: Generator,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 3.3),
    fill: float = 0.0,
) -> Tensor:
    """Overwrite one rectangle in a share ``p`` of the images (Zhong et al., Random Erasing, 2020).

    Args:
        x: (B, C, H, W) in [0, 1].
        p: probability of erasing, each image for itself.
        generator: on the device of ``x``.
        area: range of the rectangle's share of the image, uniform.
        aspect: range of height / width, log-uniform.
        fill: the pixel value written, in [0, 1].

    Returns:
        (B, C, H, W).

    Notes:
        A side that would not fit is cut to the image, where the paper draws again: for the usual ranges this touches
        rectangles near the extremes of both ranges only, and needs no loop.
    """
    height, width = x.shape[-2:]
    erased = _uniform(x, generator) < p
    pixels = _uniform(x, generator, *area) * (height * width)
    ratio = torch.exp(_uniform(x, generator, math.log(aspect[0]), math.log(aspect[1])))
    rows = (pixels * ratio).sqrt().round().clamp(1, height)
    columns = (pixels / ratio).sqrt().round().clamp(1, width)
    top = (_uniform(x, generator) * (height - rows + 1)).floor()
    left = (_uniform(x, generator) * (width - columns + 1)).floor()
    y = torch.arange(height, device=x.device)
    inside_rows = (y >= top[:, None]) & (y < (top + rows)[:, None]) & erased[:, None]
    z = torch.arange(width, device=x.device)
    inside_columns = (z >= left[:, None]) & (z < (left + columns)[:, None])
    return x.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], fill)


@dataclass(frozen=True)
class Augment:
    """What happens to a training batch, in this order: crop, flips, erasing.

    Attributes:
        crop: padding of the random crop, pixels; 0 = none.
        flip: mirror half of the images left and right.
        vertical_flip: mirror half of the images top and bottom.
        erasing: probability of erasing a rectangle; 0 = none.
        erasing_area: range of the rectangle's share of the image.
        erasing_aspect: range of the rectangle's height / width.
        erasing_fill: pixel value of the rectangle, in [0, 1].

    Raises:
        UserError: a value outside its range.
    """

    crop: NonNegativeInt = 0
    flip: bool = False
    vertical_flip: bool = False
    erasing: Share = 0.0
    erasing_area: tuple[PositiveShare, PositiveShare] = (0.02, 0.33)
    erasing_aspect: tuple[PositiveFloat, PositiveFloat] = (0.3, 3.3)
    erasing_fill: Share = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("erasing_area", "erasing_aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"dataset.augment.{name} is [{low}, {high}]: give the lower bound first.")

    def without_erasing(self) -> Augment:
        """The same crop and flips alone."""
        return replace(self, erasing=0.0)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Augment ``x`` (B, C, H, W) in [0, 1] with draws from ``generator``, which lives on the device of ``x``."""
        x = random_crop(x, self.crop, generator)
        if self.flip:
            x = random_flip(x, generator)
        if self.vertical_flip:
            x = random_vertical_flip(x, generator)
        if self.erasing > 0:
            area, aspect = (
                (self.erasing_area[0], self.erasing_area[1]),
                (self.erasing_aspect[0], self.erasing_aspect[1]),
            )
            x = random_erasing(x, self.erasing, generator, area, aspect, self.erasing_fill)
        return x
