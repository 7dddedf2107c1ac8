"""Every pixel moved by eps up or down at random: an FGSM perturbation's size without its content.

A denoiser trained on FGSM at one fixed eps may read the label out of the sign pattern. Under this control there is no
label to read.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.attack import QueryAttack
from robustforge.attacks.core.geometry import project, random_sign
from robustforge.attacks.core.session import Query
from robustforge.randomness import SampleRandom


@dataclass(frozen=True)
class RandomSign(QueryAttack):
    """One draw of random signs times eps (a random direction of length eps for L2), clipped to [0, 1]; no gradients."""

    name: str = "random_sign"

    def perturb(self, query: Query, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.QueryAttack`."""
        x = query.x
        noise = random_sign(x, query.index, query.threat, SampleRandom(seed, self.name))
        return project(x + query.threat.eps * noise, x, query.threat)
