"""Targeted PGD toward one wrong class after another (MultiTargeted, Gowal et al. 2019, arXiv:1910.09338)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES, Loss
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.rivals import Order, ranked_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import standing
from robustforge.attacks.pgd import ascend
from robustforge.ranges import NonNegativeFloat, PositiveInt
from robustforge.types import NORMS, UserError


@dataclass(frozen=True)
class MultiTargeted(BaseAttack):
    """Enumerates the most likely wrong classes, each on what the ones before left standing.

    On an aimed surface every class also opens its own part of the defense: on Memory Defense's ``slot_aimed`` this is
    the attack that tries every memory slot.

    Attributes:
        classes: wrong classes tried, most promising first; None for all.
        order: which come first: ``logits``, the likeliest, or ``malt``, those of the nearest linearized boundaries
            (arXiv:2407.02240).
        steps: gradient steps a class.
        step_size: in pixel units, or None for ``2.5 * eps / steps``.
        loss: ``margin`` or ``cross_entropy``, lowered at the class aimed at.

    Raises:
        UserError: settings under which it would do nothing, or a ``target``: it has its own.
    """

    norms = NORMS
    name: str = "multi_targeted"
    classes: PositiveInt | None = None
    order: Order = "logits"
    steps: PositiveInt = 20
    step_size: NonNegativeFloat | None = None
    loss: Loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise UserError(f"Attack {self.name} enumerates its targets: leave target at null.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best, rows = session.x.clone(), standing(session)
        if not len(rows):
            return best
        ranking, _ = ranked_classes(session, self.order, self.classes or session.classes())
        step_size = 2.5 * session.threat.eps / self.steps if self.step_size is None else self.step_size

        def toward(logits: Tensor, goal: Tensor) -> Tensor:
            return -OBJECTIVES[self.loss](logits, goal)

        for number, target in enumerate(ranking.unbind(1)):
            start = self.random_start(session, seed, rows, number)
            best[rows] = ends = ascend(session, start, rows, self.steps, step_size, toward, goal=target[rows])
            rows = rows[~session.fools(ends, rows)]
            if not len(rows):
                break
        return best
