"""FGSM: one signed gradient step of length eps from the clean image (Goodfellow et al. 2015, arXiv:1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, ascend, check_settings, climb
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, random_sign
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom
from robustforge.types import UserError

LABELS = ("given", "predicted")


@dataclass(frozen=True)
class FGSM(BaseAttack):
    """One step of length eps along the loss gradient; the normalised gradient for L2.

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

    name: str = "fgsm"
    loss: str = "cross_entropy"
    label: str = "given"
    random_share: float = 0.0
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.name, self.loss, self.precision)
        if self.label not in LABELS:
            raise UserError(f"Attack {self.name} has label='{self.label}': choose one of {', '.join(LABELS)}.")
        if not 0 <= self.random_share < 1:
            raise UserError(f"Attack {self.name} has random_share={self.random_share}: give a share in [0, 1).")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        eps = session.threat.eps

        def starts(rows: Tensor, restart: int) -> Tensor:
            if not self.random_share:
                return session.x[rows]
            noise = random_sign(
                session.x[rows], session.index[rows], session.threat, SampleRandom(seed, self.name, restart)
            )
            return project(session.x[rows] + self.random_share * eps * noise, session.x[rows], session.threat)

        def run(start: Tensor, rows: Tensor) -> Tensor:
            predicted = session.logits(session.x[rows], rows).argmax(1) if self.label == "predicted" else None
            return ascend(
                session,
                start,
                rows,
                steps=1,
                step_size=(1 - self.random_share) * eps,
                goal=predicted,
                objective=OBJECTIVES[self.loss],
                early_stop=self.early_stop,
            )

        return climb(session, starts, restarts=1, early_stop=self.early_stop, run=run)
