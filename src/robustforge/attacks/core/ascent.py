"""What projected gradient ascents share: objectives, settings, and what they carry from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from robustforge.attacks.core.checks import check_at_least, check_choice, check_precision
from robustforge.attacks.core.geometry import limits
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.attacks.core.survivors import Iterates
from robustforge.losses.classification import cross_entropy_per_sample, margin

OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy_per_sample, "margin": margin}


def check_settings(
    name: str, loss: str, precision: str, steps: int = 1, restarts: int = 1, step_size: float | None = None
) -> None:
    """Refuses settings under which an attack would do nothing and a defense would look robust.

    Raises:
        UserError: which setting, and what it may be.
    """
    check_at_least(name, 1, steps=steps, restarts=restarts)
    check_at_least(name, 0, step_size=step_size)
    check_choice(name, "loss", loss, OBJECTIVES)
    check_precision(name, precision)


@dataclass
class Ascent(Iterates):
    """What projected gradient ascent carries.

    Attributes:
        clean: (m, C, H, W) images.
        gradient: (m, C, H, W) at the iterates.
        goal: (m, ...) second argument of the objective, or None for labels (or the session's targets).
        box: lowest and highest pixels (m, C, H, W) of an L-infinity ball; see ``limits``.
        velocity: (m, C, H, W) accumulated gradient, or None without momentum and before the first step.
    """

    clean: Tensor
    gradient: Tensor
    goal: Tensor | None
    box: tuple[Tensor, Tensor] | None
    velocity: Tensor | None = None

    @classmethod
    def begin(cls, session: AttackSession, start: Tensor, rows: Tensor, goal: Tensor | None = None) -> Self:
        """At the first iterates ``start`` (n, C, H, W) of the images ``rows`` (n,)."""
        clean = session.x[rows]
        return cls(start, clean, start, goal, limits(clean, session.threat))
