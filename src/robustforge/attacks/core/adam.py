"""Adam's moments (Kingma & Ba 2015, arXiv:1412.6980), for attacks that take its steps on images."""

from __future__ import annotations

import torch
from torch import Tensor

BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8


class Adam:
    """The moments of one tensor of iterates, all of whose images are at the same step.

    Args:
        like: (n, ...) what gradients will look like.
    """

    def __init__(self, like: Tensor) -> None:
        self._first, self._second, self._step = torch.zeros_like(like), torch.zeros_like(like), 0

    def moments(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Takes a gradient (n, ...) in; (mean, root of the mean square) corrected for bias: a step is their ratio."""
        self._step += 1
        self._first.lerp_(gradient, 1 - BETA_1)
        self._second.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        scale = (self._second / (1 - BETA_2**self._step)).sqrt_().add_(TINY)
        return self._first / (1 - BETA_1**self._step), scale
