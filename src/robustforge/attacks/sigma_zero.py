"""sigma-zero: descent on a smooth count of the changed values (Cina et al. 2025, arXiv:2402.01879, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.adam import Adam
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import linf_norm, per_sample
from robustforge.attacks.core.hinges import hinged
from robustforge.attacks.core.nearest import Nearest, check_norm
from robustforge.attacks.core.session import AttackSession
from robustforge.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Precision
from robustforge.types import COUNTS, Norm

_FINAL_STEP = 0.1  # of the first step, at the end
_TINY = 1e-12


@dataclass(frozen=True)
class SigmaZero(BaseAttack):
    """Minimizes max(-margin, 0) + the mean of d^2 / (d^2 + sigma) over all values d of the perturbation.

    Small values are set to 0 after every step; the threshold rises while the image fools and falls while it does not.

    Attributes:
        precision: ``float32``; bf16 blurs the boundary, and the perturbations found are 1 to 2 % larger.
        steps: gradient steps.
        step_size: Adam's first one, in pixel units; it falls to a tenth along a cosine.
        sigma: smoothness of the count.
        threshold: below which values are set to 0, at first.
        adjustment: change of the threshold at each step, as a share of the step size.
        prunings: changed values of the result, smallest first, that are set back at the end one by one, while the
            system is fooled (paper: 0).
        norm: ``l0``, ``l0_pixels`` or None for the threat's; pixels are counted by the length of their channels.

    Raises:
        UserError: settings under which it would do nothing.
    """

    norms = COUNTS
    name: str = "sigma_zero"
    precision: Precision = "float32"
    steps: PositiveInt = 100
    step_size: PositiveFloat = 1.0
    sigma: PositiveFloat = 1e-3
    threshold: NonNegativeFloat = 0.3
    adjustment: NonNegativeFloat = 0.01
    prunings: NonNegativeInt = 40
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.name, self.norm, self.norms)

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, self.norm)
        rows, pixels = nearest.standing(), nearest.name == "l0_pixels"
        clean, delta = session.x[rows], torch.zeros_like(session.x[rows])
        objective = hinged(session)
        adam, threshold = Adam(delta), torch.full((len(rows),), self.threshold, device=rows.device)

        for step in range(self.steps if len(rows) else 0):
            gradient, logits, _ = session.gradient(clean + delta, rows, objective)
            fooled = nearest.offer(clean + delta, rows, session.suspects(logits, rows))
            descent = self._count_gradient(delta, pixels) - gradient
            mean, scale = adam.moments(descent / per_sample(linf_norm(descent).clamp_min(_TINY), descent))
            decay = (1 + math.cos(math.pi * step / self.steps)) / 2
            stride = self.step_size * (_FINAL_STEP + (1 - _FINAL_STEP) * decay)
            delta = (clean + delta - stride * mean / scale).clamp(0, 1) - clean
            change = self.adjustment * stride
            threshold = (threshold + torch.where(fooled, change, -change)).clamp(0, 1)
            delta = torch.where(_squares(delta, pixels).sqrt() < per_sample(threshold, delta), 0.0, delta)
        nearest.offer(clean + delta, rows, torch.ones_like(rows, dtype=torch.bool))
        nearest.prune(rows, self.prunings)
        return nearest.result()

    def _count_gradient(self, delta: Tensor, pixels: bool) -> Tensor:
        """Gradient of the smooth count over the number of what is counted, like ``delta`` (n, C, H, W)."""
        squares = _squares(delta, pixels)
        return 2 * self.sigma * delta / (squares + self.sigma).square() / squares.shape[1:].numel()


def _squares(delta: Tensor, pixels: bool) -> Tensor:
    """Squares of what is counted: (n, C, H, W) of values, (n, 1, H, W) of pixels."""
    return delta.square().sum(1, keepdim=True) if pixels else delta.square()
