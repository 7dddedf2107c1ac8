"""Zero borders, so that networks that halve an image several times take images of any size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def padded_size(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple."""
    return -(-size // multiple) * multiple


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H', W') with both sides rounded up to ``multiple``, the border zero and centered."""
    rows, columns = (padded_size(side, multiple) - side for side in x.shape[-2:])
    if not rows and not columns:
        return x
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def crop_to(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H', W') -> (B, C, height, width), the middle; undoes :func:`pad_to_multiple`."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
