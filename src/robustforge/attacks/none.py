"""No attack: the images as they are, for rows and tests that need an identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.attack import QueryAttack
from robustforge.attacks.core.session import Query


@dataclass(frozen=True)
class NoAttack(QueryAttack):
    """Returns ``x``; success is the system's clean error."""

    name: str = "clean"

    def perturb(self, query: Query, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.QueryAttack`."""
        return query.x
