"""Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827): gradient steps in a ball whose radius adapts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, l1_norm, l2_norm, linf_norm, per_sample
from robustforge.attacks.core.nearest import Nearest, check_norm
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.sparse import project_l0, project_l1
from robustforge.losses.classification import margin
from robustforge.ranges import OpenShare, PositiveFloat, PositiveInt
from robustforge.types import COUNTS, NORMS, Norm, Threat, UserError

_TINY = 1e-12
_STEP_SIZES = {"l2": 1.0, "linf": 10.0, "l1": 1.0, "l0": 1.0, "l0_pixels": 1.0}
_DUALS = {"l2": l2_norm, "linf": l1_norm, "l1": linf_norm}  # of the gradient: what the boundary is away is in units of
_FINAL_SHARE = 0.01  # of the step size, at the end
_SEARCH = 4  # a radius that counts grows so many times as fast until it has been large enough


@dataclass(frozen=True)
class FMN(BaseAttack):
    """Shrinks the radius while the image fools, widens it while it does not, and steps along the margin's gradient.

    Attributes:
        steps: gradient steps.
        step_size: first step, the length in L2 of a step in pixel units (for every norm), annealed to a hundredth by a
            cosine; None for 10 (L-infinity) or 1 (others).
        gamma: first share by which the radius changes, annealed to ``final_gamma`` by a cosine.
        final_gamma: last share.
        norm: ``l2``, ``linf``, ``l1``, ``l0``, ``l0_pixels``, or None for the threat's.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Until an image has fooled, its radius is the estimated distance of the boundary, here lengthened by ``gamma``:
        an estimate that is too short by a little approaches the boundary for ever and never crosses it. A radius that
        counts begins at 1, moves by 1 or more, and grows four times as fast until the image fools. In L1 the projection
        is onto the ball within [0, 1].
    """

    norms = NORMS
    name: str = "fmn"
    steps: PositiveInt = 100
    step_size: PositiveFloat | None = None
    gamma: OpenShare = 0.05
    final_gamma: OpenShare = 1e-3
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.name, self.norm, self.norms)
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
            if norm in COUNTS:
                radius = _counted(radius, fooled, found, gamma)
            else:
                estimate = nearest.norm(delta) + value.abs() / _DUALS[norm](gradient).clamp_min(_TINY)
                missed = torch.where(found.isinf(), estimate * (1 + self.gamma), radius * (1 + gamma))
                radius = torch.where(fooled, torch.minimum(radius * (1 - gamma), found), missed)
            stride = largest * (_FINAL_SHARE + (1 - _FINAL_SHARE) * decay)
            delta = delta + stride * ascent_direction(gradient, Threat("l2", 1.0))
            delta = _shorten(delta, radius, norm, clean) - clean
        x_adv = (clean + delta).clamp(0, 1)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        return nearest.result()


def _counted(radius: Tensor, fooled: Tensor, found: Tensor, gamma: float) -> Tensor:
    """Radii (n,) that count, after a step: whole numbers of at least 1, below the best ``found`` once there is one."""
    fewer = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), found - 1)
    growth = torch.where(found.isinf(), 1 + _SEARCH * gamma, 1 + gamma)
    more = torch.where(radius.isinf(), 1.0, torch.maximum(radius + 1, (radius * growth).floor()))
    return torch.where(fooled, fewer, more).clamp_min(1.0)


def _shorten(delta: Tensor, radius: Tensor, norm: str, clean: Tensor) -> Tensor:
    """Images (n, C, H, W) in [0, 1] for perturbations cut to each image's own radius (n,)."""
    if norm in COUNTS:
        return project_l0(clean + delta, clean, radius, norm == "l0_pixels")
    if norm == "l1":
        return project_l1(clean + delta, clean, radius)
    limit = per_sample(radius, delta)
    if norm == "linf":
        return (clean + torch.min(torch.max(delta, -limit), limit)).clamp(0, 1)
    return (clean + delta * (limit / per_sample(l2_norm(delta).clamp_min(_TINY), delta)).clamp(max=1.0)).clamp(0, 1)
