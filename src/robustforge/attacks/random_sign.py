"""Every pixel moved by eps up or down at random: an FGSM perturbation's size without its content.

A denoiser trained on FGSM at one fixed eps may read the label out of the sign pattern. Under this control there is no
label to read.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, random_sign
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom
from robustforge.types import NORMS


@dataclass(frozen=True)
class RandomSign(BaseAttack):
    """One draw of random signs times eps (other norms: a random direction of length eps), clipped to [0, 1]."""

    norms = NORMS
    name: str = "random_sign"

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        x = session.x
        noise = random_sign(x, session.index, session.threat, SampleRandom(seed, self.name))
        return project(x + session.threat.eps * noise, x, session.threat)
