"""Random noise of the budget's size: the control that every gradient attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, random_sign, random_start
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import standing
from robustforge.randomness import SampleRandom
from robustforge.ranges import PositiveFloat, PositiveInt
from robustforge.types import NORMS


@dataclass(frozen=True)
class Noise(BaseAttack):
    """Draws noise inside the ball until the system is fooled; no gradients.

    Attributes:
        kind: ``uniform`` in the ball, or ``gaussian``: for L-infinity pixels of standard deviation ``scale * eps`` cut
            at eps, for other norms a random direction of length eps.
        repeats: draws an image; the first that fools is returned, else the last.
        scale: standard deviation of Gaussian pixels as a share of eps.

    Raises:
        UserError: settings under which it would do nothing.
    """

    norms = NORMS
    name: str = "uniform_noise"
    kind: Literal["uniform", "gaussian"] = "uniform"
    repeats: PositiveInt = 10
    scale: PositiveFloat = 0.5

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        x_adv, rows = session.x.clone(), standing(session)
        for repeat in range(self.repeats):
            if not len(rows):
                break
            x_adv[rows] = self._draw(session, rows, SampleRandom(seed, self.name, repeat))
            if repeat + 1 < self.repeats:
                rows = rows[~session.fools(x_adv[rows], rows)]
        return x_adv

    def _draw(self, session: AttackSession, rows: Tensor, random: SampleRandom) -> Tensor:
        x, index, threat = session.x[rows], session.index[rows], session.threat
        if self.kind == "uniform":
            noisy = random_start(x, index, threat, random)
        elif threat.norm != "linf":
            noisy = x + threat.eps * random_sign(x, index, threat, random)
        else:
            noisy = x + self.scale * threat.eps * random.normal(index, x.shape[1:])
        return project(noisy, x, threat)
