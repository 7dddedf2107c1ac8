"""Gradients past what has none: the straight-through argmax and the backward pass differentiable approximation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.types import UserError


def straight_through_one_hot(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """One-hot of the argmax going forward, softmax(logits / temperature) going backward (arXiv:1308.3432).

    Args:
        logits: (B, K).
        temperature: T > 0; smaller is closer to the argmax, with gradients that vanish sooner.

    Returns:
        (B, K), exactly 0 or 1.

    Raises:
        UserError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise UserError(f"The temperature is {temperature}: give a positive number.")
    soft = (logits / temperature).softmax(1)
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).to(soft.dtype)
    # soft - soft.detach() is exactly zero, so the sum is exactly one-hot; adding in another order would round
    return hard + (soft - soft.detach())


def backward_pass(
    function: Callable[[Tensor], Tensor], x: Tensor, surrogate: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """``function(x)`` going forward, the gradient of ``surrogate`` going backward (BPDA, arXiv:1802.00420).

    Args:
        function: run without gradients.
        x: its input.
        surrogate: differentiable, same output shape; None: the identity.

    Returns:
        Exactly ``function(x)``.
    """
    with torch.no_grad():
        value = function(x)
    stand_in = x if surrogate is None else surrogate(x)
    return value + (stand_in - stand_in.detach())
