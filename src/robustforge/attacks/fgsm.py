"""FGSM: one signed gradient step of length eps from the clean image (Goodfellow et al. 2015, arXiv:1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Ascent, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, projected_step_, random_sign
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Survivors, standing
from robustforge.randomness import SampleRandom
from robustforge.ranges import ShareBelowOne
from robustforge.types import NORMS


@dataclass(frozen=True)
class FGSM(BaseAttack):
    """One step of length eps along the loss gradient, in the norm of the threat.

    Attributes:
        loss: ``cross_entropy`` or ``margin``.
        label: whose loss is raised: that of the ``given`` (true) label, or of the model's own ``predicted`` one, which
            leaks nothing about the true one into the perturbation (Kurakin et al. 2017, arXiv:1611.01236).
        random_share: share of eps spent on random signs before the step (R+FGSM, Tramer et al. 2018, arXiv:1705.07204,
            uses 0.5); 0 for none.
        early_stop: leave images alone that are misclassified already.

    Raises:
        UserError: settings under which it would do nothing.
    """

    norms = NORMS
    name: str = "fgsm"
    loss: Loss = "cross_entropy"
    label: Literal["given", "predicted"] = "given"
    random_share: ShareBelowOne = 0.0
    early_stop: bool = True

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best, rows = session.x.clone(), standing(session) if self.early_stop else session.everyone()
        if not len(rows):
            return best
        start, threat, size = best[rows], session.threat, (1 - self.random_share) * session.threat.eps
        if self.random_share:
            noise = random_sign(start, session.index[rows], threat, SampleRandom(seed, self.name))
            start = project(start + self.random_share * threat.eps * noise, start, threat)
        label = session.logits(best[rows], rows).argmax(1) if self.label == "predicted" else None
        runs = Survivors(session, rows, start, stops="all" if self.early_stop else "never")
        s = Ascent.begin(session, start, rows, label)
        s.gradient, logits, _ = session.gradient(s.x, rows, OBJECTIVES[self.loss], s.goal)
        s = runs.judge(s, session.suspects(logits, rows))
        best[rows] = runs.finish(projected_step_(s.x, s.gradient, size, s.clean, threat, s.box))
        return best
