"""Losses of APE-GAN (Shen et al. 2017, arXiv:1707.05474)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

PixelLoss = Literal["rmse", "mse"]
PIXEL_LOSSES = ("rmse", "mse")
_TINY = 1e-12  # keeps the slope of the square root finite


def pixel_error(rebuilt: Tensor, clean: Tensor, kind: PixelLoss) -> Tensor:
    """How far rebuilt images are from the clean ones, with pixels in [-1, 1] as in the released code.

    Args:
        rebuilt: (B, C, H, W) in [0, 1].
        clean: (B, C, H, W) in [0, 1].
        kind: ``mse``, mean squared error over all pixels of the batch, or ``rmse``, its square root.

    Returns:
        (), at most 4 (``mse``) or 2 (``rmse``).
    """
    squared = 4 * F.mse_loss(rebuilt, clean)
    return (squared + _TINY).sqrt() if kind == "rmse" else squared


def discriminator_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """Binary cross-entropy of both answers, nats: logits (B, 1) of clean and of rebuilt images -> ()."""
    return F.softplus(-real).mean() + F.softplus(rebuilt).mean()


def adversarial_loss(rebuilt: Tensor) -> Tensor:
    """What the generator pays where rebuilt images are found out, -log D(G(x)) in nats: logits (B, 1) -> ()."""
    return F.softplus(-rebuilt).mean()
