"""PGD that stops where it has converged well enough (Wang et al. 2019, ICML, "On the convergence and robustness of
adversarial training"): the attack inside dynamic adversarial training.
"""  # noqa: D205

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, l1_norm, l2_norm, project, random_start
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom
from robustforge.ranges import NonNegativeFloat, PositiveInt
from robustforge.types import Threat


def first_order_stationarity(gradient: Tensor, x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """FOSC (Wang et al. 2019, Eq. 4): how far the loss could still rise to first order, within the ball.

    c(x_adv) = eps |g|_dual - <x_adv - x, g>, with the L1 norm for L-infinity balls and the L2 norm for L2 balls.

    Args:
        gradient: (B, C, H, W) of each sample's loss, g.
        x_adv: (B, C, H, W) iterates.
        x: (B, C, H, W) clean images, the ball's center.
        threat: the ball.

    Returns:
        (B,) units of the loss; at least 0 inside the ball, 0 at a stationary point.

    Notes:
        The released code measures from the randomly started image; the paper's x^0, and ours, is the clean one. The
        bounds [0, 1] are left out, as in the paper: an iterate held by them keeps a positive value.
    """
    dual = l1_norm(gradient) if threat.norm == "linf" else l2_norm(gradient)
    return threat.eps * dual - ((x_adv - x) * gradient).flatten(1).sum(1)


@dataclass(frozen=True)
class FoscPGD(BaseAttack):
    """PGD from one random start; the first step is always taken, then each image moves while its FOSC is above a bound.

    Attributes:
        steps: most gradient steps.
        step_size: step in pixel units, or None for ``eps / 4`` (released code).
        criterion: FOSC at or below which an image stops, units of the loss; 0 runs all steps.
        loss: ``cross_entropy`` or ``margin``.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "fosc_pgd"
    steps: PositiveInt = 10
    step_size: NonNegativeFloat | None = None
    criterion: NonNegativeFloat = 0.0
    loss: Loss = "cross_entropy"

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        threat, rows = session.threat, session.everyone()
        step_size = threat.eps / 4 if self.step_size is None else self.step_size
        start = random_start(session.x, session.index, threat, SampleRandom(seed, self.name))
        current = project(start, session.x, threat)
        for step in range(self.steps):
            gradient, _, _ = session.gradient(current[rows], rows, OBJECTIVES[self.loss])
            if step:
                moving = first_order_stationarity(gradient, current[rows], session.x[rows], threat) > self.criterion
                rows, gradient = rows[moving], gradient[moving]
                if not len(rows):
                    break
            moved = current[rows] + step_size * ascent_direction(gradient, threat)
            current[rows] = project(moved, session.x[rows], threat)
        return current
