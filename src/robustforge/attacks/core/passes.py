"""What goes into an attacker's pass, and what comes out of it."""

from __future__ import annotations

import torch
from torch import Tensor


def copied(x: Tensor) -> Tensor:
    """What a network is given of images that are still needed, since it may write into its input; channels last."""
    return x.clone(memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)


def derivative(value: Tensor, leaf: Tensor, more: bool) -> Tensor:
    """Of the sum of ``value`` (n,): float32 like ``leaf`` (n, ...), an honest zero where it does not depend on it.

    Args:
        value: of each image.
        leaf: with respect to what.
        more: whether another value of the same pass is to be differentiated after it.
    """
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf, retain_graph=more, allow_unused=True, materialize_grads=True)
    return gradient.float().contiguous()
