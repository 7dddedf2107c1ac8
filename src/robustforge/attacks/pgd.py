"""PGD: projected gradient ascent from random starts (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Ascent, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import projected_step_
from robustforge.attacks.core.repeats import Repeats
from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.attacks.core.survivors import Survivors, standing
from robustforge.ranges import NonNegativeFloat, PositiveInt
from robustforge.types import NORMS


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

    norms = NORMS
    name: str = "pgd"
    steps: PositiveInt = 40
    step_size: NonNegativeFloat | None = None
    restarts: PositiveInt = 1
    loss: Loss = "cross_entropy"
    early_stop: bool = True

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        step_size = 2.5 * session.threat.eps / self.steps if self.step_size is None else self.step_size
        rows = standing(session) if self.early_stop else session.everyone()

        def run(begin: Tensor, rows: Tensor, _: Sequence[int]) -> tuple[Tensor, None]:
            objective = OBJECTIVES[self.loss]
            return ascend(session, begin, rows, self.steps, step_size, objective, early_stop=self.early_stop), None

        start = partial(self.random_start, session, seed)
        return in_rounds(session, first_then_others(1, self.restarts), start, run, rows=rows, fallback=-1)


def ascend(
    session: AttackSession,
    start: Tensor,
    rows: Tensor,
    steps: int,
    step_size: float,
    objective: Objective,
    *,
    goal: Tensor | None = None,
    early_stop: bool = True,
) -> Tensor:
    """Madry et al.'s loop (Sec. 2.1): x <- Proj(x + step_size * sign(gradient of the objective at x)).

    Args:
        session: the surface, the images and the budget.
        start: (n, C, H, W) first iterates.
        rows: (n,) whose they are; a row may stand several times (restarts).
        steps: number of steps.
        step_size: in pixel units, in the threat's norm.
        objective: what is maximized.
        goal: (n, ...) second argument of ``objective``; labels (or the session's targets) by default.
        early_stop: stop an image at its first iterate that fools the system, and with it those further down that
            start from the same image: the earlier restart counts, however many run side by side.

    Returns:
        (n, C, H, W): last, or first fooling, iterates. A run that only repeats itself ends early, with the same result.
    """
    repeats = Repeats(steps, steps * step_size / session.threat.eps, start.device)
    runs = Survivors(session, rows, start, stops="later" if early_stop else "never")
    s = Ascent.begin(session, start, rows, goal)
    for number in runs.steps(steps):
        s.gradient, logits, s.value = session.gradient(s.x, runs.rows, objective, s.goal)
        s = repeats.end(runs, runs.judge(s, session.suspects(logits, runs.rows)), number)
        s.x = projected_step_(s.x, s.gradient, step_size, s.clean, session.threat, s.box)
    return runs.finish(s.x)
