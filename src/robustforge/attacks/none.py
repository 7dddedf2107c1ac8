"""No attack: the images as they are, for rows and tests that need an identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.engine import Query, check_images, finish, frozen
from robustforge.attacks.surfaces import Surface
from robustforge.types import AttackResult, Threat


@dataclass(frozen=True)
class NoAttack:
    """Returns ``x``; success is the system's clean error."""

    name: str = "clean"

    def __call__(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *,
        index: Tensor | None = None, seed: int = 0, threshold: float | None = None,
    ) -> AttackResult:  # fmt: skip
        """See :class:`robustforge.attacks.base.Attack`."""
        check_images(x)
        query = Query(surface, threat, "float32", threshold)
        query.start(len(x), x.device)
        with frozen(surface.modules):
            return finish(query, x, x, y)
