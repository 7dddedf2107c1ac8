"""PGD: projected gradient ascent from random starts (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, ascend, check_settings, climb
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, random_start
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom


@dataclass(frozen=True)
class PGD(BaseAttack):
    """Gradient steps from uniform random starts in the ball.

    Attributes:
        steps: number of steps a restart.
        step_size: step in pixel units, or None for ``2.5 * eps / steps``.
        restarts: random starts; later ones attack only survivors, side by side.
        loss: ``cross_entropy``, or ``margin`` (PGD on Carlini & Wagner's loss).
        early_stop: stop an image at its first fooling iterate; False returns last iterates, as released code does.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "pgd"
    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    loss: str = "cross_entropy"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.name, self.loss, self.precision, self.steps, self.restarts, self.step_size)

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        step = 2.5 * session.threat.eps / self.steps if self.step_size is None else self.step_size

        def starts(rows: Tensor, restart: int) -> Tensor:
            x, random = session.x[rows], SampleRandom(seed, self.name, restart)
            return project(random_start(x, session.index[rows], session.threat, random), x, session.threat)

        def run(start: Tensor, rows: Tensor) -> Tensor:
            return ascend(
                session,
                start,
                rows,
                steps=self.steps,
                step_size=step,
                objective=OBJECTIVES[self.loss],
                early_stop=self.early_stop,
            )

        return climb(session, starts, restarts=self.restarts, early_stop=self.early_stop, run=run)
