"""EAD: an elastic net over the perturbation, by iterative shrinkage (Chen et al. 2018, arXiv:1709.04114)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import per_sample
from robustforge.attacks.core.hinges import hinged
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import AttackSession
from robustforge.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

_FASTER = 10.0  # factor of c until one works


@dataclass(frozen=True)
class EAD(BaseAttack):
    """Minimizes c max(-margin, 0) + |d|_2^2 + beta |d|_1 by FISTA, and searches the smallest c that works.

    Attributes:
        search_steps: rounds of the search over c: times 10 until one works, then bisection.
        steps: gradient steps a round.
        step_size: of the gradient step at first, falling with the root of the share of steps left.
        beta: size below which a step's result is set back to the clean value, and by which others are shrunk (paper:
            0.0001 to 0.01).
        initial_c: c of the first round.
        halvings: of the way back to the boundary at the end, while the system is fooled (paper: 0).

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The images that are kept are the extrapolated points, at which gradients are taken, cut to [0, 1]: the paper
        asks the network about the points between as well, one more forward pass a step. The nearest in L1 is kept.
    """

    norms = ("l1",)
    name: str = "ead"
    search_steps: PositiveInt = 9
    steps: PositiveInt = 100
    step_size: PositiveFloat = 0.01
    beta: NonNegativeFloat = 1e-2
    initial_c: PositiveFloat = 1e-3
    halvings: NonNegativeInt = 6

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session)
        rows = nearest.standing()
        c = torch.full((len(rows),), self.initial_c, device=rows.device)
        low, high = torch.zeros_like(c), torch.full_like(c, float("inf"))
        for _ in range(self.search_steps if len(rows) else 0):
            found = self._round(session, nearest, rows, c)
            low, high = torch.where(found, low, c), torch.where(found, c, high)
            c = torch.where(high.isinf(), c * _FASTER, (low + high) / 2)
        nearest.pull(rows, self.halvings)
        return nearest.result()

    def _round(self, session: AttackSession, nearest: Nearest, rows: Tensor, c: Tensor) -> Tensor:
        """One descent from the clean images with weights ``c`` (n,); (n,) bool: which fooled on the way."""
        objective = hinged(session)
        clean = before = ahead = session.x[rows]
        found = torch.zeros_like(rows, dtype=torch.bool)
        for step in range(self.steps):
            gradient, logits, _ = session.gradient(ahead, rows, objective)
            found |= nearest.offer(ahead, rows, session.suspects(logits, rows))
            descent = 2 * (ahead - clean) - per_sample(c, ahead) * gradient
            delta = ahead - self.step_size * (1 - step / self.steps) ** 0.5 * descent - clean
            x_adv = (clean + delta.sign() * (delta.abs() - self.beta).clamp_min(0)).clamp(0, 1)
            ahead = (x_adv + step / (step + 3) * (x_adv - before)).clamp(0, 1)
            before = x_adv
        return found | nearest.offer(before, rows, torch.ones_like(rows, dtype=torch.bool))
