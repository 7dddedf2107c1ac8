"""BIM: iterated FGSM from the clean image (Kurakin et al. 2017, arXiv:1607.02533); with momentum it is MIM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Ascent, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import l1_norm, per_sample, projected_step_
from robustforge.attacks.core.repeats import Repeats
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Survivors, standing
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from robustforge.types import NORMS


@dataclass(frozen=True)
class BIM(BaseAttack):
    """Gradient steps without a random start.

    Attributes:
        steps: number of steps.
        step_size: step in pixel units, or None for ``relative_step * eps``.
        relative_step: step as a share of eps, used when ``step_size`` is None.
        momentum: decay of the accumulated gradient, each normalized to unit L1 norm (MIM, Dong et al. 2018,
            arXiv:1710.06081, uses 1.0); 0 for none.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: stop an image at its first fooling iterate.

    Raises:
        UserError: settings under which it would do nothing.
    """

    norms = NORMS
    name: str = "bim"
    steps: PositiveInt = 10
    step_size: NonNegativeFloat | None = None
    relative_step: PositiveFloat = 0.25
    momentum: NonNegativeFloat = 0.0
    loss: Loss = "cross_entropy"
    early_stop: bool = True

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best, rows = session.x.clone(), standing(session) if self.early_stop else session.everyone()
        step_size = self.relative_step * session.threat.eps if self.step_size is None else self.step_size
        runs = Survivors(session, rows, best[rows], stops="all" if self.early_stop else "never")
        s = Ascent.begin(session, best[rows], rows)
        travel = 0.0 if self.momentum else self.steps * step_size / session.threat.eps  # momentum remembers more than x
        repeats = Repeats(self.steps, travel, best.device)
        for number in runs.steps(self.steps):
            s.gradient, logits, s.value = session.gradient(s.x, runs.rows, OBJECTIVES[self.loss])
            s = repeats.end(runs, runs.judge(s, session.suspects(logits, runs.rows)), number)
            if self.momentum:
                normalized = s.gradient / per_sample(l1_norm(s.gradient), s.gradient)
                s.velocity = normalized if s.velocity is None else self.momentum * s.velocity + normalized
                s.gradient = s.velocity.clone()
            s.x = projected_step_(s.x, s.gradient, step_size, s.clean, session.threat, s.box)
        best[rows] = runs.finish(s.x)
        return best
