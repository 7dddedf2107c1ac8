"""The weight of the constraint against the distance, as primal-dual attacks move it (arXiv:2106.01538, Section 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST = 1e-6  # ratio of one weight to the other
_FIRST = 0.01  # ratio of the distance's weight to the constraint's, at first
_RATE, _FINAL_RATE = 0.1, 0.01  # step of the logarithm: at first, and at the end of a straight line
_KEPT = 0.9  # share of the average so far in the running one


class Duals:
    """Of each image the two weights, positive and of sum 1; gradient ascent moves the logarithm of their ratio.

    Args:
        images: number.
        steps: number of steps to come.
        device: of the tensors.

    Attributes:
        distance: (n,) weight of the distance, a running average.
        constraint: (n,) of the constraint that the image be misclassified.
    """

    def __init__(self, images: int, steps: int, device: torch.device) -> None:
        self._steps = steps
        self._log = torch.full((images,), -math.log(_FIRST), device=device)
        self.constraint = self._log.sigmoid()
        self.distance = 1 - self.constraint

    def ascend(self, step: int, fooled: Tensor) -> None:
        """Raises the constraint's weight of images that do not fool yet, lowers that of the others, (n,) bool."""
        left = (self._steps - 1 - step) / max(1, self._steps - 1)
        rate = _FINAL_RATE + (_RATE - _FINAL_RATE) * left
        bound = -math.log(_SMALLEST)
        self._log = (self._log + torch.where(fooled, -rate, rate)).clamp(-bound, bound)
        self.constraint = torch.lerp(self._log.sigmoid(), self.constraint, _KEPT)
        self.distance = 1 - self.constraint
