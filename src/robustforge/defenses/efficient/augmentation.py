"""Gaussian data augmentation of Efficient Defenses (Zantedeschi et al. 2017, arXiv:1707.06728)."""

from __future__ import annotations

import torch
from torch import Tensor


def with_noisy_copies(x: Tensor, y: Tensor, std: float, copies: int) -> tuple[Tensor, Tensor]:
    """The images, then ``copies`` blocks of them with Gaussian noise, cut to [0, 1]; labels likewise.

    Args:
        x: (B, C, H, W) in [0, 1].
        y: (B,) labels.
        std: standard deviation of the noise before the cut, pixel units.
        copies: of each image, each with noise of its own.

    Returns:
        (B * (1 + copies), C, H, W) in [0, 1], and (B * (1 + copies),).
    """
    repeated = x.repeat(copies, 1, 1, 1)
    noisy = (repeated + std * torch.randn_like(repeated)).clamp(0, 1)
    return torch.cat([x, noisy]), y.repeat(1 + copies)
