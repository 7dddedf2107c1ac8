"""Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827): gradient steps in a ball whose radius adapts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, l1_norm, l2_norm, per_sample
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import AttackSession
from robustforge.losses.classification import margin
from robustforge.ranges import OpenShare, PositiveFloat, PositiveInt
from robustforge.types import Norm, Threat, UserError

_TINY = 1e-12
_STEP_SIZES = {"l2": 1.0, "linf": 10.0}
_FINAL_SHARE = 0.01  # of the step size, at the end


@dataclass(frozen=True)
class FMN(BaseAttack):
    """Shrinks the radius while the image fools, widens it while it does not, and steps along the margin's gradient.

    Attributes:
        steps: gradient steps.
        step_size: first step, the length in L2 of a step in pixel units (for both norms), annealed to a hundredth by a
            cosine; None for 1 (L2) or 10 (L-infinity).
        gamma: first share by which the radius changes, annealed to ``final_gamma`` by a cosine.
        final_gamma: last share.
        norm: ``l2``, ``linf``, or None for the threat's.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Until an image has fooled, its radius is the estimated distance of the boundary, here lengthened by ``gamma``:
        an estimate that is too short by a little approaches the boundary for ever and never crosses it.
    """

    name: str = "fmn"
    steps: PositiveInt = 100
    step_size: PositiveFloat | None = None
    gamma: OpenShare = 0.05
    final_gamma: OpenShare = 1e-3
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_gamma > self.gamma:
            raise UserError(f"Attack {self.name} has final_gamma={self.final_gamma}: give at most gamma, {self.gamma}.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, self.norm)
        norm = nearest.name
        rows = nearest.standing()
        clean, delta = session.x[rows], torch.zeros_like(session.x[rows])
        radius = torch.full((len(rows),), float("inf"), device=rows.device)
        largest = _STEP_SIZES[norm] if self.step_size is None else self.step_size
        for step in range(self.steps if len(rows) else 0):
            decay = (1 + math.cos(math.pi * step / self.steps)) / 2
            gamma = self.final_gamma + (self.gamma - self.final_gamma) * decay
            x_adv = (clean + delta).clamp(0, 1)
            gradient, logits, value = session.gradient(x_adv, rows, margin)
            fooled = nearest.offer(x_adv, rows, session.suspects(logits, rows))
            found = nearest.distance[rows]
            steepness = l1_norm(gradient) if norm == "linf" else l2_norm(gradient)
            estimate = nearest.norm(delta) + value.abs() / steepness.clamp_min(_TINY)
            missed = torch.where(found.isinf(), estimate * (1 + self.gamma), radius * (1 + gamma))
            radius = torch.where(fooled, torch.minimum(radius * (1 - gamma), found), missed)
            stride = largest * (_FINAL_SHARE + (1 - _FINAL_SHARE) * decay)
            delta = delta + stride * ascent_direction(gradient, Threat("l2", 1.0))
            delta = (clean + _shorten(delta, radius, norm)).clamp(0, 1) - clean
        x_adv = (clean + delta).clamp(0, 1)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        return nearest.result()


def _shorten(delta: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Perturbations (n, C, H, W) cut to each image's own radius (n,)."""
    limit = per_sample(radius, delta)
    if norm == "linf":
        return torch.min(torch.max(delta, -limit), limit)
    return delta * (limit / per_sample(l2_norm(delta).clamp_min(_TINY), delta)).clamp(max=1.0)
