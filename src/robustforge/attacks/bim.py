"""BIM: iterated FGSM from the clean image (Kurakin et al. 2017, arXiv:1607.02533); with momentum it is MIM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, ascend, check_settings, climb
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.session import AttackSession
from robustforge.types import UserError


@dataclass(frozen=True)
class BIM(BaseAttack):
    """Gradient steps without a random start.

    Attributes:
        steps: number of steps.
        step_size: step in pixel units, or None for ``relative_step * eps``.
        relative_step: step as a share of eps, used when ``step_size`` is None.
        momentum: decay of the accumulated gradient, each normalised to unit L1 norm (MIM, Dong et al. 2018,
            arXiv:1710.06081, uses 1.0); 0 for none.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: stop an image at its first fooling iterate.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "bim"
    steps: int = 10
    step_size: float | None = None
    relative_step: float = 0.25
    momentum: float = 0.0
    loss: str = "cross_entropy"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.name, self.loss, self.precision, self.steps, step_size=self.step_size)
        if not self.momentum >= 0:
            raise UserError(f"Attack {self.name} has momentum={self.momentum}: give a decay of 0 or more (MIM: 1).")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        step = self.relative_step * session.threat.eps if self.step_size is None else self.step_size

        def run(start: Tensor, rows: Tensor) -> Tensor:
            return ascend(
                session,
                start,
                rows,
                steps=self.steps,
                step_size=step,
                momentum=self.momentum,
                objective=OBJECTIVES[self.loss],
                early_stop=self.early_stop,
            )

        return climb(session, lambda rows, _: session.x[rows], restarts=1, early_stop=self.early_stop, run=run)
