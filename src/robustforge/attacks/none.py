"""No attack: the images as they are, for rows and tests that need an identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.session import AttackSession
from robustforge.types import NORMS


@dataclass(frozen=True)
class NoAttack(BaseAttack):
    """Returns ``x``; success is the system's clean error."""

    norms = NORMS
    name: str = "clean"

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        return session.x.clone()
