"""PDGD: the smallest L2 perturbation as a game of two players (Matyasko & Chau 2021, arXiv:2106.01538)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.adam import Adam
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.duals import Duals
from robustforge.attacks.core.geometry import l2_norm, per_sample
from robustforge.attacks.core.hinges import softened
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import AttackSession
from robustforge.ranges import NonNegativeInt, PositiveFloat, PositiveInt

FINAL_STEP = 0.01  # of the first step, at the end of a geometric sequence
_TINY = 1e-12


@dataclass(frozen=True)
class PDGD(BaseAttack):
    """The perturbation descends weighted distance plus constraint by Adam; their weights ascend.

    Attributes:
        steps: gradient steps.
        step_size: Adam's first, in pixel units; it falls to a hundredth along a geometric sequence.
        halvings: of the way back to the boundary at the end, while the system is fooled (paper: 0).

    Raises:
        UserError: settings under which it would do nothing.
    """

    norms = ("l2",)
    name: str = "pdgd"
    steps: PositiveInt = 100
    step_size: PositiveFloat = 0.1
    halvings: NonNegativeInt = 6

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session)
        rows = nearest.standing()
        clean = x_adv = session.x[rows]
        objective = softened(session)
        adam, duals = Adam(clean), Duals(len(rows), self.steps, rows.device)
        for step in range(self.steps if len(rows) else 0):
            gradient, logits, _ = session.gradient(x_adv, rows, objective)
            fooled = nearest.offer(x_adv, rows, session.suspects(logits, rows))
            delta = x_adv - clean
            outward = delta / per_sample(l2_norm(delta).clamp_min(_TINY), delta)
            descent = per_sample(duals.distance, delta) * outward - per_sample(duals.constraint, delta) * gradient
            mean, scale = adam.moments(descent)
            stride = self.step_size * FINAL_STEP ** (step / self.steps)
            x_adv = (x_adv - stride * mean / scale).clamp(0, 1)
            duals.ascend(step, fooled)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        nearest.pull(rows, self.halvings)
        return nearest.result()
