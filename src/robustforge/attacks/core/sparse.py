"""L1 and L0 balls: their projections within [0, 1], starts and steps. L0 counts values, or positions of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustforge.randomness import SampleRandom

L0_STRIDE = 8.0  # how far the average value moves in a step of L0, for each of the values that may differ
STEP_SHARE = 0.01  # of the values that one L1 step moves: the largest 1 % of the gradient, as in SLIDE


def project_l1(moved: Tensor, x: Tensor, radius: float | Tensor) -> Tensor:
    """Nearest point of the L1 ball around ``x`` within [0, 1] (Croce & Hein 2021, arXiv:2103.01208, Proposition 2.1).

    Args:
        moved: (B, ...), anywhere.
        x: (B, ...) centers in [0, 1].
        radius: one for all, or (B,).

    Returns:
        (B, ...) in [0, 1].

    Notes:
        Each value moves by min(max(size - t, 0), room) for one threshold t an image. The sum of these is piecewise
        linear in t, with corners at every size and size - room: sorted, one of its pieces holds the radius.
    """
    delta = (moved - x).flatten(1)
    size, flat = delta.abs(), x.flatten(1)
    room = torch.where(delta > 0, 1 - flat, flat)
    corners = torch.cat([size, (size - room).clamp_min(0)], 1).double()
    corners, order = corners.sort(1, descending=True)
    sign = torch.where(order < size.shape[1], 1.0, -1.0).double()
    slope, height = sign.cumsum(1), (sign * corners).cumsum(1)
    limit = torch.as_tensor(radius, device=x.device, dtype=torch.float64).reshape(-1, 1)
    below = (height - slope * corners <= limit).sum(1, keepdim=True)
    last = (below - 1).clamp_min(0)
    threshold = (height.gather(1, last) - limit) / slope.gather(1, last).clamp_min(1.0)
    threshold = torch.where(below == corners.shape[1], 0.0, threshold).clamp_min(0).to(size.dtype)
    kept = torch.minimum((size - threshold).clamp_min(0), room)
    return (flat + delta.sign() * kept).clamp(0, 1).view_as(moved)


def project_l0(moved: Tensor, x: Tensor, count: float | Tensor, pixels: bool) -> Tensor:
    """Nearest image in [0, 1] that differs from ``x`` in at most ``count`` values.

    Args:
        moved: (B, C, H, W), anywhere.
        x: (B, C, H, W) centers in [0, 1].
        count: one for all, or (B,).
        pixels: count positions, at which all channels may differ, in place of values.

    Returns:
        (B, C, H, W) in [0, 1]; exactly ``x`` where nothing is to differ.
    """
    landed = moved.clamp(0, 1)
    gain = (moved - x).square() - (moved - landed).square()  # what keeping a value brings nearer to `moved`
    return torch.where(largest(gain, count, pixels), landed, x)


def largest(size: Tensor, count: float | Tensor, pixels: bool = False) -> Tensor:
    """Where the largest entries are.

    Args:
        size: (B, ...), or (B, C, H, W) for ``pixels``.
        count: how many, one for all or (B,).
        pixels: positions of the largest sums over channels.

    Returns:
        Bool like ``size``.
    """
    flat = (size.sum(1, keepdim=True) if pixels else size).flatten(1)
    order = flat.sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(flat.shape[1], device=size.device).expand_as(order)
    first = place < torch.as_tensor(count, device=size.device).reshape(-1, 1)
    found = torch.zeros_like(first).scatter(1, order, first)
    return (found.view(-1, 1, *size.shape[2:]) if pixels else found.view_as(size)).expand_as(size)


def l1_step(gradient: Tensor) -> Tensor:
    """The direction of one L1 step, of length 1: signs of the largest 1 % (SLIDE, arXiv:1904.13000, Algorithm 1)."""
    count = math.ceil(STEP_SHARE * gradient.shape[1:].numel())
    return gradient.sign() * largest(gradient.abs(), count) / max(count, 1)


def l0_step(gradient: Tensor, count: float) -> Tensor:
    """The gradient over its mean size: a step of length ``count * s`` moves the average value by 8 s.

    PGD in L0 balls (Croce & Hein 2019, arXiv:1909.05040) takes the normalized gradient too, with steps so long that the
    largest entries go to 0 or 1; the projection then keeps the best of them. With 8 the customary length of 2.5 eps for
    all steps together is that of its released code, and leaves the fewest digits.
    """
    mean = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return L0_STRIDE * gradient / mean.view(-1, *([1] * (gradient.dim() - 1))) / max(count, 1)


def random_l1(x: Tensor, index: Tensor, random: SampleRandom) -> Tensor:
    """A random direction like ``x`` (B, ...), of L1 length 1: uniform on the sphere."""
    size = -torch.log1p(-random.uniform(index, x.shape[1:]))
    sign = torch.where(random.uniform(index, x.shape[1:], stream=2) < 0.5, -1.0, 1.0)
    total = size.flatten(1).sum(1).clamp_min(torch.finfo(size.dtype).tiny)
    return sign * size / total.view(-1, *([1] * (x.dim() - 1)))


def random_places(x: Tensor, index: Tensor, count: float, pixels: bool, random: SampleRandom) -> Tensor:
    """Bool like ``x`` (B, C, H, W): ``count`` random values of each sample, or positions."""
    drawn = random.uniform(index, x.shape[1:], stream=3)
    return largest(drawn[:, :1].expand_as(x) if pixels else drawn, count, pixels)
