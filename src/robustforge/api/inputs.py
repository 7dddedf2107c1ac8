"""Images and labels as callers have them, brought to tensors and checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustforge.attacks.core.inputs import check_images, check_labels
from robustforge.types import UserError


def as_images(x: Any) -> Tensor:
    """Images as a tensor (B, C, H, W): uint8 as they are, floats as float32 in [0, 1].

    Args:
        x: tensor or array; uint8 stands for pixels of 0 .. 255.

    Raises:
        UserError: no image, another shape, type or range, NaN, or uint8 of nothing but 0 and 1.
    """
    try:
        images = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"Images must be a tensor or an array, and these are a {type(x).__name__} ({error})."
        ) from error
    if not images.numel():
        raise UserError(f"There are no images: their shape is {tuple(images.shape)}.")
    if images.dim() == 3 and (images.is_floating_point() or images.dtype == torch.uint8):
        raise UserError(
            f"Images must be (B, C, H, W), and these are {tuple(images.shape)}: give x[None] for one image, x[:, None] "
            "for gray ones."
        )
    if images.dtype != torch.uint8:
        check_images(images)
        return images.detach().float()
    check_images(images.float().div(255))
    if int(images.max()) == 1:
        raise UserError("Images of type uint8 hold 0 .. 255, and these hold 0 and 1: give x.float(), or 255 * x.")
    return images


def as_labels(y: Any, count: int) -> Tensor:
    """Labels as a tensor (B,) int64.

    Raises:
        UserError: they are not one class number of 0 or more for each image.
    """
    try:
        labels = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"Labels must be a tensor or a sequence of integers ({error}).") from error
    return check_labels(labels, count)
