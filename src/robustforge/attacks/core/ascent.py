"""What projected gradient ascents share: objectives, settings, and what they carry from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor

from robustforge.attacks.core.geometry import limits
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.attacks.core.survivors import Iterates
from robustforge.losses.classification import cross_entropy_per_sample, margin

Loss = Literal["cross_entropy", "margin"]
OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy_per_sample, "margin": margin}


@dataclass
class Ascent(Iterates):
    """What projected gradient ascent carries."""

    clean: Tensor  # (m, C, H, W)
    gradient: Tensor  # (m, C, H, W) at x
    goal: Tensor | None  # (m, ...) second argument of the objective; None for labels (or the session's targets)
    box: tuple[Tensor, Tensor] | None  # lowest and highest pixels of an L-infinity ball, see `limits`
    velocity: Tensor | None = None  # (m, C, H, W) accumulated gradient; None before the first step
    value: Tensor | None = None  # (m,) of the objective at x, as the next three kept for `Repeats`
    remembered: Tensor | None = None  # (m, C, H, W) an iterate of some steps ago
    known: Tensor | None = None  # (m,) its objective
    until: Tensor | None = None  # (m,) steps after which the run stands where it would end

    @classmethod
    def begin(cls, session: AttackSession, start: Tensor, rows: Tensor, goal: Tensor | None = None) -> Self:
        """At the first iterates ``start`` (n, C, H, W) of the images ``rows`` (n,)."""
        clean = session.x[rows]
        return cls(start, clean, start, goal, limits(clean, session.threat))
