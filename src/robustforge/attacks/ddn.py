"""DDN: direction and norm of the perturbation decoupled (Rony et al. 2019, arXiv:1811.09600, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, l2_norm, per_sample
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import AttackSession
from robustforge.ranges import NonNegativeInt, OpenShare, PositiveFloat, PositiveInt
from robustforge.types import Threat, UserError

_FINAL_STEP = 0.01  # of the first step, at the end
_TINY = 1e-12


@dataclass(frozen=True)
class DDN(BaseAttack):
    """Steps along the normalized gradient, on a sphere that shrinks while the image fools and grows while it does not.

    Attributes:
        steps: gradient steps.
        radius: of the first sphere, L2 in pixel units.
        gamma: share by which the radius changes at first.
        final_gamma: the same at the end, reached along a cosine; equal to ``gamma`` it is the paper's.
        step_size: of the first step, L2 in pixel units; it falls to a hundredth along a cosine.
        loss: whose gradient is followed: ``cross_entropy`` (paper) or ``margin``.
        halvings: of the way back to the boundary at the end, while the system is fooled (paper: 0).

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The paper keeps gamma at 0.05, so that the radius ends within 5 % of the boundary at best; here it falls. Images
        are not rounded to 256 levels. A result outside the ball is projected into it.
    """

    norms = ("l2",)
    name: str = "ddn"
    steps: PositiveInt = 100
    radius: PositiveFloat = 1.0
    gamma: OpenShare = 0.05
    final_gamma: OpenShare = 0.001
    step_size: PositiveFloat = 1.0
    loss: Loss = "cross_entropy"
    halvings: NonNegativeInt = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_gamma > self.gamma:
            raise UserError(f"Attack {self.name} has final_gamma={self.final_gamma}: give at most gamma, {self.gamma}.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session)
        rows = nearest.standing()
        clean = x_adv = session.x[rows]
        farthest = l2_norm(torch.maximum(clean, 1 - clean))
        radius = torch.full((len(rows),), self.radius, device=rows.device)
        for step in range(self.steps if len(rows) else 0):
            gradient, logits, _ = session.gradient(x_adv, rows, OBJECTIVES[self.loss])
            fooled = nearest.offer(x_adv, rows, session.suspects(logits, rows))
            decay = (1 + math.cos(math.pi * step / self.steps)) / 2
            gamma = self.final_gamma + (self.gamma - self.final_gamma) * decay
            radius = torch.minimum(radius * torch.where(fooled, 1 - gamma, 1 + gamma), farthest)
            stride = self.step_size * (_FINAL_STEP + (1 - _FINAL_STEP) * decay)
            delta = x_adv - clean + stride * ascent_direction(gradient, Threat("l2", 1.0))
            delta = delta * per_sample(radius / l2_norm(delta).clamp_min(_TINY), delta)
            x_adv = (clean + delta).clamp(0, 1)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        nearest.pull(rows, self.halvings)
        return nearest.result()
